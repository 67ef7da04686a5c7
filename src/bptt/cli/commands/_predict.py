"""``bptt predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bptt.cli import _predict, _text
from bptt.cli._show import guarded
from bptt.cli.commands._common import Data, given
from bptt.errors import OptionError
from bptt.runs import task_of

PREDICT_HELP = """Forecast a table with the network of a run.

Every row of DATA gives one prediction, made after reading it: the output names the row that it is
of, so that the last rows lie past the end of DATA.

[bold]Examples[/bold]

  bptt predict furnace newer.csv --out predictions.csv

  bptt predict sunspots --free-run 20        (feeds predictions back, 20 years past the end)

  bptt predict book --begin "Once " --sample 500        (of a text: a sample)

  bptt predict book other.txt        (and how well the model predicts another text)

With inputs, a free run covers the last N rows of DATA: it reads their inputs, and not their
targets, which may be empty.
"""


@guarded
def predict(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    data: Data = None,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where the predictions go.")] = Path(
        "predictions.csv"
    ),
    free_run: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Feed predictions back for N steps in place of the target's past.",
            show_default="never",
        ),
    ] = None,
    missing: Annotated[
        Literal["refuse", "mask"] | None,
        typer.Option(help="As in `bptt fit`.", show_default="as the run was fitted"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there without asking.")
    ] = False,
    begin: Annotated[
        str, typer.Option(help="How a sample of a text begins.", show_default="anew")
    ] = "",
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Draw so many characters of a text.",
            show_default="300 without DATA",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1, likelier characters are drawn more often still.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    asked = given(context)
    if task_of(run) == "text":
        for name in asked & {"out", "force", "free_run", "missing"}:
            raise OptionError(
                f"--{name.replace('_', '-')} forecasts a table, but {run} is of a text: --sample, "
                "--begin, --temperature and --seed go with it."
            )
        _text.predict(run, data, begin, sample, temperature, seed)
        return
    for name in asked & {"begin", "sample", "temperature", "seed"}:
        raise OptionError(f"--{name} is of a text, but {run} forecasts a table.")
    _predict.run(run, data, out, force, free_run, missing)
