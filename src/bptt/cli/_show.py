"""What the terminal shows: tables of errors, and bad input as one screen without a traceback."""

from __future__ import annotations

import errno
import functools
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from bptt import _ending
from bptt.comparison import Comparison
from bptt.errors import BpttError, NonFiniteError, ProcessError
from bptt.files import printable, why
from bptt.forecasting import Metrics
from bptt.training import Moved

P = ParamSpec("P")

_FAULTS = (
    errno.ENOSPC,
    errno.EIO,
    errno.EFBIG,
    errno.EROFS,
    getattr(errno, "EDQUOT", errno.ENOSPC),
)
"""What is no mistake of the user's."""

BAD_INPUT, FAILED, NO_SKILL = 2, 1, 3
"""Exit codes: what was asked cannot be done; it was tried and failed; what was made is no better
than the simplest model, and was to be."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The command, its errors shown as a message and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _ending.note(_ending.NOTHING)
        _ending.together = command.__name__ == "fit"
        _at_work.clear()
        try:
            command(*args, **kwargs)
        except NonFiniteError as error:
            leave("Training stopped", str(error), FAILED)
        except BpttError as error:
            leave("Error", str(error), _code(error))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            leave("Error", "there is not enough memory for this: ask for less.", FAILED)
        except OSError as error:
            leave("Error", why(error), _code(error))
        except KeyboardInterrupt:
            stop(signal.SIGINT)

    return run


_at_work: list[bool] = []


def at_work() -> None:
    """All is checked, and work begins: what goes wrong from now on has failed."""
    _at_work[:] = [True]


def is_at_work() -> bool:
    """Whether `at_work` was said."""
    return bool(_at_work)


def _code(error: BpttError | OSError) -> int:
    """Which of the two it is: what the system refuses for no mistake of the user's, and what other
    processes do, has failed, at whatever moment."""
    if _at_work:
        return FAILED
    refused = getattr(error, "errno", None) in _FAULTS
    return FAILED if refused or isinstance(error, (Moved, ProcessError)) else BAD_INPUT


def stop(number: signal.Signals) -> NoReturn:
    """End as by a signal: one line says what is saved, and how to go on."""
    if _ending.speaks():
        print(_ending.line(), file=sys.stderr)
    raise typer.Exit(128 + number)


def warn(message: Warning | str, *place: Any, **more: Any) -> None:
    """A warning as a user of the command line is told it: without the line of code."""
    print(f"Warning: {printable(str(message))}", file=sys.stderr)


def leave(title: str, message: str, code: int) -> NoReturn:
    """Show why, and end with an exit code; of several processes the first one shows it, which
    knows why the others end."""
    _ending.note("The reason is told above.")
    text = _plain(message)
    if _ending.speaks():
        Console(stderr=True).print(Panel(text, title=title, title_align="left", border_style="red"))
    raise typer.Exit(code)


def show_comparison(found: Comparison) -> None:
    """A row for each method, the lowest median loss in bold: how many runs met the target, and
    what that took."""
    starts = len(found.of(found.methods[0]))
    table = Table(
        title=f"{starts} start{'s' * (starts != 1)}, {escape(str(found.budget))} each; target "
        f"{found.loss} {found.target:.4g}; × {found.reference}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for name in ("median", "spread", "met", "seconds", "× time", "evals", "× evals"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = found.table()
    lowest = min(row.loss for row in rows)
    for row in rows:
        losses = [f"{row.loss:.3g}", f"{row.low:.3g}–{row.high:.3g}"]
        spent = (row.seconds, row.times_seconds, row.evaluations, row.times_evaluations)
        table.add_row(
            row.method,
            *losses,
            f"{row.reached}/{starts}",
            *("–" if number == float("inf") else f"{number:.3g}" for number in spent),
            style="bold green" if row.loss == lowest else None,
        )
    Console(file=sys.stdout).print(table)


def say(text: str = "") -> None:
    """A line of markup on standard output."""
    Console(file=sys.stdout, highlight=False).print(printable(text))


def _plain(text: str) -> str:
    """Text that is shown as it is."""
    return escape(printable(text))


def _error(number: float | None) -> str:
    """An error; a square that no number can hold is left out."""
    return "–" if number is None else f"{number:.4g}"


def show_metrics(
    metrics: tuple[Metrics, ...],
    unit: str,
    where: str = "on the test part",
    rivals: bool = True,
) -> None:
    """Errors in units of the column ``unit``: of several models on the same rows, the lowest in
    bold, or of one model on several kinds of rows (not ``rivals``)."""
    count = metrics[0].count if rivals else sum(one.count for one in metrics)
    predictions = f"{count} prediction{'s' * (count != 1)}"
    table = Table(
        title=f"Error {_plain(where)}, {predictions}, in units of {_plain(unit)}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("model" if rivals else "")
    for name in ("RMSE", "MSE", "MAE"):
        table.add_column(name, justify="right")
    lowest = min(one.rmse for one in metrics)
    for one in metrics:
        numbers = (one.rmse, one.mse, one.mae)
        style = "bold green" if rivals and one.rmse == lowest else None
        table.add_row(_plain(one.name), *map(_error, numbers), style=style)
    Console(file=sys.stdout).print(table)
