"""``bptt fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bptt._ending import world
from bptt.cli import _fit, _forecast, _text
from bptt.cli._show import NO_SKILL, guarded
from bptt.cli.commands._common import (
    COLUMNS,
    NETWORK,
    RUN,
    TRAINING,
    Data,
    Group,
    Time,
    given,
    names,
)
from bptt.errors import OptionError
from bptt.forecasting import Job, Options

FIT_HELP = """Train a network on a table, and compare it with linear models on the last rows.

With no DATA it trains on the yearly sunspot numbers 1700–2008, one step ahead.

[bold]Prediction[/bold] (the default): the target's past is among the inputs. Beside persistence
and a linear AR or ARX model.

[bold]Simulation[/bold] (--simulate): the inputs alone. Beside the training mean and a linear
finite impulse response.

[bold]Text[/bold] (--task text): the next character, or byte, of a text file of any length, beside
counted frequencies. It has defaults of its own: --hidden 128 --depth 64 (and no --stride) --lr
0.005 --clip 1 --epochs 20 --patience 3 --validation 0.05 --test 0.05.

[bold]Examples[/bold]

  bptt fit

  bptt fit furnace.csv --inputs InputGasRate --target CO2 --test 96 --out furnace

  bptt fit furnace.csv --inputs InputGasRate --target CO2 --simulate

  bptt fit sales.csv --target sales --time month --horizon 3

  bptt fit shops.csv --target sales --time day --group shop        (many series, one model)

  bptt fit 2023.csv --target load --test-data 2024.csv

  bptt fit load.parquet --inputs temperature,weekday --target load --horizon 24

  bptt fit load.csv --target load --season 24,168 --lags 48

  bptt fit load.csv --target load --cell lstm --hidden 32 --method full --lr 0.001

  bptt fit load.csv --target load --starts 16 --jobs 4

  bptt fit book.txt --task text --out book

  torchrun --nproc-per-node 4 -m bptt fit load.csv --target load --lanes 16 --out run

  bptt fit --resume furnace        (after a crash, Ctrl-C, or for more --epochs)
"""


@guarded
def fit(
    context: typer.Context,
    data: Data = None,
    task: Annotated[
        Literal["forecast", "text"],
        typer.Option(help="What DATA is: a table, or a text.", rich_help_panel=COLUMNS),
    ] = "forecast",
    unit: Annotated[
        Literal["character", "byte"],
        typer.Option(help="What of a text is a step.", rich_help_panel=COLUMNS),
    ] = "character",
    inputs: Annotated[
        str, typer.Option(help="Input columns, separated by commas.", rich_help_panel=COLUMNS)
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to forecast.", rich_help_panel=COLUMNS)
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            help="How many steps ahead.",
            show_default="1, with --simulate 0",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    lags: Annotated[
        int | None,
        typer.Option(
            help="Steps of the past that the linear model reads.",
            show_default="as many as serve best",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    season: Annotated[
        str | None,
        typer.Option(
            metavar="P[,P…]",
            help="Periods of the target, in steps, separated by commas; or none.",
            show_default="found in the training part",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Do not read the target's past.", rich_help_panel=COLUMNS),
    ] = False,
    missing: Annotated[
        Literal["refuse", "mask"],
        typer.Option(
            help="Missing targets: refuse them, or leave them uncounted (where the past target is "
            "an input, the last known one stands in).",
            rich_help_panel=COLUMNS,
        ),
    ] = "refuse",
    time: Time = None,
    group: Group = None,
    test: Annotated[
        float,
        typer.Option(
            help="The last rows, to test on: a share, or a number of rows, of every series; 0 is "
            "none; of a text, a share.",
            rich_help_panel=COLUMNS,
        ),
    ] = _forecast.DEFAULTS.test,
    test_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Another table with the same columns, to test on in place of the last rows.",
            show_default="the last rows of DATA",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            help="The rows before those, to validate on: a share of what is not tested on, or a "
            "number of rows; of a text, a share.",
            rich_help_panel=COLUMNS,
        ),
    ] = _forecast.DEFAULTS.validation,
    cell: Annotated[
        Literal["auto", "gru", "lstm", "elman", "leaky", "state-space"],
        typer.Option(
            help="The recurrent cell; auto: gru, and with --simulate gru or state-space, whichever "
            "does better in a short trial on the validation part.",
            rich_help_panel=NETWORK,
        ),
    ] = "auto",
    hidden: Annotated[
        int, typer.Option(help="Units of each layer.", rich_help_panel=NETWORK)
    ] = _forecast.DEFAULTS.hidden,
    layers: Annotated[
        int, typer.Option(help="Recurrent layers.", rich_help_panel=NETWORK)
    ] = _forecast.DEFAULTS.layers,
    method: Annotated[
        Literal["truncated", "full", "sliding-window"] | None,
        typer.Option(
            help="How the gradient is found.",
            show_default="truncated, with --simulate full",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    depth: Annotated[
        int,
        typer.Option(
            help="Steps that an error travels back (truncated, sliding-window).",
            rich_help_panel=TRAINING,
        ),
    ] = _forecast.DEFAULTS.depth,
    stride: Annotated[
        int,
        typer.Option(help="Steps between two updates (truncated).", rich_help_panel=TRAINING),
    ] = _forecast.DEFAULTS.stride,
    loss: Annotated[
        Literal["mse", "mae", "huber"],
        typer.Option(help="The loss, of scaled values.", rich_help_panel=TRAINING),
    ] = "mse",
    optimizer: Annotated[
        Literal["adam", "adamw", "rmsprop", "sgd", "lbfgs"],
        typer.Option(help="How the weights change.", rich_help_panel=TRAINING),
    ] = "adamw",
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate.",
            show_default="adam and adamw 0.002 (with --simulate 0.01), rmsprop 0.001, sgd 0.01, "
            "lbfgs 1",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="How strongly adamw draws the weights to zero.",
            show_default="1, with --simulate 0",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Scale gradients down to this norm.",
            show_default="never, with --simulate 1",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    on_nonfinite: Annotated[
        Literal["stop", "skip", "rollback"],
        typer.Option(
            help="What follows when an update is NaN or infinite, which is never made: stop, go on "
            "with the next, or return to earlier weights at half the learning rate.",
            rich_help_panel=TRAINING,
        ),
    ] = "stop",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data, at most.",
            show_default="100, with --simulate 200 to 2000",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better validation loss.",
            show_default="40, with --simulate 400",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the initial weights.", rich_help_panel=TRAINING)
    ] = _forecast.DEFAULTS.seed,
    starts: Annotated[
        int,
        typer.Option(
            help="Train from so many initial weights, and keep the best on the validation part.",
            rich_help_panel=TRAINING,
        ),
    ] = _forecast.DEFAULTS.starts,
    lanes: Annotated[
        int | None,
        typer.Option(
            help="Stretches of the training part that run side by side; the processes that "
            "torchrun starts share them.",
            show_default=f"of a text {_text.DEFAULTS.lanes}, of a table 1 for each process",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="How many starts run at once; -1: one for each processor.",
            show_default="1",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The folder for model, configuration, history and pictures.",
            show_default="bptt-run, or bptt-run-2, … where that exists",
            rich_help_panel=RUN,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the run in RUN once the new one is done; with --resume, take data that "
            "changed.",
            rich_help_panel=RUN,
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was broken off, with the data and options recorded in it.",
            show_default="begin a new one",
            rich_help_panel=RUN,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="EVERY",
            help="How often to save the training: a time (30s, 5min, 1h), a number of updates, or "
            "never. Between the first save and the last, saving takes at most 1 % of the time.",
            rich_help_panel=RUN,
        ),
    ] = "30s",
    require_skill: Annotated[
        bool,
        typer.Option(
            "--require-skill",
            help="End with exit code 3 where the run delivers the simplest model, as nothing was "
            "certainly better before the test part.",
            rich_help_panel=RUN,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress bar.", rich_help_panel=RUN)
    ] = False,
) -> None:
    often = _fit.every(checkpoint)
    if resume is not None:
        _go_on(context, resume, often)
        return
    asked = given(context)
    output = _fit.Output(out, force, quiet, save=often is not None)
    if task == "text":
        chosen = {name: context.params[name] for name in asked}
        _fit.run(_text.job(data, chosen, often or "30s"), output)
        return
    if test_data is not None and "test" in asked:
        raise OptionError(
            "--test cuts rows off DATA to test on, and --test-data names a file of them: give one."
        )
    if "unit" in asked:
        raise OptionError("--unit goes with --task text alone.")
    options = Options(
        simulate=simulate,
        horizon=horizon,
        cell=cell,
        hidden=hidden,
        layers=layers,
        method=method,
        depth=depth,
        stride=stride,
        loss=loss,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        clip=clip,
        epochs=epochs,
        patience=patience,
        validation=validation,
        test=test if test_data is None else 0,
        seed=seed,
        starts=starts,
        on_nonfinite=on_nonfinite,
        lanes=world() if lanes is None else lanes,
        lags=lags,
        season=None if season is None else _periods(season),
    )
    job = Job(
        data=data,
        inputs=names(inputs),
        target=target,
        missing=missing,
        options=options,
        jobs=jobs,
        time=time,
        group=group,
        test_data=test_data,
        every=often or "30s",
    )
    _ended(_fit.run(job, output), require_skill)


def _ended(skilled: bool, required: bool) -> None:
    """End with an exit code of its own where the run is no better than the simplest model, if it
    must be."""
    if required and not skilled:
        raise typer.Exit(NO_SKILL)


def _periods(text: str) -> tuple[int, ...]:
    """Periods out of ``"12,6"``, or ``"none"``."""
    if text.strip() == "none":
        return ()
    try:
        found = tuple(int(name) for name in names(text))
    except ValueError:
        found = ()
    if not found:
        raise OptionError("--season takes whole numbers of steps, separated by commas, or none.")
    return found


GOES_ON = {
    *("resume", "epochs", "jobs", "on_nonfinite", "checkpoint", "force", "quiet"),
    "require_skill",
}
"""What may be given when a run goes on."""


def _go_on(context: typer.Context, folder: Path, often: str | int | None) -> None:
    asked = given(context)
    if asked - GOES_ON:
        left_out = ("DATA" if name == "data" else f"--{name}" for name in sorted(asked - GOES_ON))
        raise OptionError(
            "--resume goes on with the data and options recorded in the run: leave out "
            f"{', '.join(left_out).replace('_', '-')}. --epochs, --jobs, --on-nonfinite, "
            "--checkpoint, --force, --require-skill and --quiet may be given."
        )
    if "checkpoint" in asked and often is None:
        raise OptionError("--resume goes on saving: give --checkpoint a time, not never.")
    values = context.params
    job = {name: values[name] for name in asked & {"jobs"}}
    job |= {"every": often} if "checkpoint" in asked else {}
    options = {name: values[name] for name in asked & {"epochs", "on_nonfinite"}}
    changes = _fit.Changes(job, options)
    skilled = _fit.go_on(folder, changes, values["force"], values["quiet"])
    _ended(skilled, values["require_skill"])
