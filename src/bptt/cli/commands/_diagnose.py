"""``bptt diagnose`` and ``bptt report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bptt.cli import _diagnose
from bptt.cli._show import guarded
from bptt.cli.commands._common import Data, names

DIAGNOSE_HELP = """See what the gradient reaches, whether the dynamics are chaotic, how rough the
loss is.

[bold]reach[/bold]: how many steps back an error is felt, what a depth of truncation misses, and the
depth to choose.

[bold]dynamics[/bold]: Lyapunov exponents, spectral radius, saturated gates.

[bold]surface[/bold]: the loss around the weights, along random directions and those of largest
curvature.

Of a run with several starts also their spread. Pictures, numbers and one page go to RUN/diagnosis.

[bold]Examples[/bold]

  bptt diagnose sunspots

  bptt diagnose furnace furnace.csv --parts reach --depth 50 --tolerance 0.001
"""

REPORT_HELP = """Gather a run in one page of HTML that needs no server and no network: its history,
its pictures, and its diagnosis if there is one.

[bold]Example[/bold]

  bptt diagnose furnace furnace.csv && bptt report furnace
"""


@guarded
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    data: Data = None,
    parts: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(
        _diagnose.PARTS
    ),
    depth: Annotated[
        int | None,
        typer.Option(help="A depth of truncation to judge.", show_default="the run's own"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The relative bias that the recommended depth may have.")
    ] = 0.01,
    lags: Annotated[
        int | None,
        typer.Option(
            help="Follow errors back so many steps, at most.", show_default="as far as they reach"
        ),
    ] = None,
    anchors: Annotated[
        int, typer.Option(help="Steps whose errors are followed back, spread over DATA.")
    ] = 256,
    steps: Annotated[int, typer.Option(help="Rows of DATA to look at, from the first.")] = 10_000,
    missing: Annotated[
        Literal["refuse", "mask"] | None,
        typer.Option(help="As in `bptt fit`.", show_default="as the run was fitted"),
    ] = None,
) -> None:
    asked = _diagnose.Asked(names(parts), depth, tolerance, lags, anchors, steps)
    _diagnose.diagnose(run, data, missing, asked)


@guarded
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="Where it goes.", show_default="RUN/report.html"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there without asking.")
    ] = False,
) -> None:
    _diagnose.report(run, out, force)
