"""``bptt compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bptt.cli import _compare
from bptt.cli._show import guarded
from bptt.cli.commands._common import COLUMNS, NETWORK, RUN, TRAINING, Group, Time, names
from bptt.comparison import DEFAULT, METHODS

COMPARE_HELP = """Train the same network from the same starts by several methods, under one budget.

Loss against time and against evaluations of the cell, median and spread over the starts, time to a
target loss, and how many times what full BPTT took. The loss is the mean squared error of scaled
values over all of DATA: this compares training, not forecasts.

With no DATA: the yearly sunspot numbers, then the adding problem.

[bold]Examples[/bold]

  bptt compare

  bptt compare load.csv --target load --methods full,truncated,evolution --budget 60s

  bptt compare load.csv --target load --budget 1e6 --starts 9
"""


@guarded
def compare_methods(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="CSV or Parquet, a row for each step.",
            show_default="sunspots, then the adding problem",
        ),
    ] = None,
    inputs: Annotated[
        str, typer.Option(help="Input columns, separated by commas.", rich_help_panel=COLUMNS)
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to forecast.", rich_help_panel=COLUMNS)
    ] = None,
    horizon: Annotated[
        int, typer.Option(help="How many steps ahead.", rich_help_panel=COLUMNS)
    ] = 1,
    missing: Annotated[
        Literal["refuse", "mask"],
        typer.Option(help="As in `bptt fit`.", rich_help_panel=COLUMNS),
    ] = "refuse",
    time: Time = None,
    group: Group = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Separated by commas, of: " + ", ".join(METHODS) + ".", rich_help_panel=TRAINING
        ),
    ] = ",".join(DEFAULT),
    budget: Annotated[
        str,
        typer.Option(
            help="Of each run: a time (60s, 2min), or a number of evaluations of the cell (1e6).",
            rich_help_panel=TRAINING,
        ),
    ] = "2.5s",
    starts: Annotated[
        int,
        typer.Option(help="Initial weights, the same for every method.", rich_help_panel=TRAINING),
    ] = 3,
    depth: Annotated[
        int,
        typer.Option(
            help="Of truncated and sliding-window; the stride of rtrl, uoro and focused.",
            rich_help_panel=TRAINING,
        ),
    ] = 25,
    lr: Annotated[
        float, typer.Option(help="Learning rate of Adam.", rich_help_panel=TRAINING)
    ] = 0.01,
    target_loss: Annotated[
        float | None,
        typer.Option(
            help="The loss to reach (mean squared error of scaled values).",
            show_default="nine tenths of the way that full BPTT goes",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    cell: Annotated[
        Literal["gru", "lstm", "elman"],
        typer.Option(help="The recurrent cell.", rich_help_panel=NETWORK),
    ] = "gru",
    hidden: Annotated[int, typer.Option(help="Units.", rich_help_panel=NETWORK)] = 8,
    seed: Annotated[
        int, typer.Option(help="Of the initial weights.", rich_help_panel=TRAINING)
    ] = 0,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Where pictures and tables go.", rich_help_panel=RUN),
    ] = Path("bptt-compare"),
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace what is there without asking.", rich_help_panel=RUN),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress bar.", rich_help_panel=RUN)
    ] = False,
) -> None:
    options = _compare.Options(
        methods=names(methods),
        budget=budget,
        starts=starts,
        horizon=horizon,
        cell=cell,
        hidden=hidden,
        depth=depth,
        rate=lr,
        target_loss=target_loss,
        seed=seed,
    )
    source = _compare.Source(data, names(inputs), target, missing, time, group)
    _compare.run(source, options, out, force, quiet)
