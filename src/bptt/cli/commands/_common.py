"""What several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

COLUMNS = "What to learn"
NETWORK = "The network"
TRAINING = "How it is trained"
RUN = "Where it goes"

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="CSV or Parquet, a row for each step; or a text.",
        show_default="sunspots",
    ),
]

Time = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column of times: dates (2024-12-31, 2024-12-31T23:00) or numbers, rising "
        "from row to row. It is no input.",
        show_default="the one column that holds no numbers, if it holds dates; '' for none",
        rich_help_panel=COLUMNS,
    ),
]

Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column that tells several series of one table apart: one model is trained on "
        "all, and nothing is read across them.",
        show_default="one series",
        rich_help_panel=COLUMNS,
    ),
]


def given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # Compared by name: newer versions of Typer bring click along under a name of their own.
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def names(text: str) -> tuple[str, ...]:
    """Column names out of ``"A,B"``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
