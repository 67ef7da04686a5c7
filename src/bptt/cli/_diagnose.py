"""``bptt diagnose`` and ``bptt report``: what one can see of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape

from bptt import _ending
from bptt.cli._place import check_out
from bptt.cli._predict import read
from bptt.cli._show import at_work, say
from bptt.diagnostics import PARTS as PARTS
from bptt.diagnostics import is_page
from bptt.errors import OptionError
from bptt.files import shown
from bptt.forecasting import PAGE, diagnose_run, forecaster_of
from bptt.forecasting import report as write_report
from bptt.runs import read_run, task_of


@dataclass(frozen=True)
class Asked:
    """The options of `bptt.diagnose` that the command line has."""

    parts: tuple[str, ...]
    depth: int | None
    tolerance: float
    lags: int | None
    anchors: int
    steps: int


def diagnose(run: Path, data: Path | None, missing: str | None, asked: Asked) -> None:
    """Diagnose ``run`` on ``data``, say what was found, and leave it in RUN/diagnosis."""
    _check_task(run, "diagnose")
    whole = read_run(run)
    series = read(forecaster_of(whole), run, data, missing, command="diagnose")
    diagnosis, files = diagnose_run(whole, series, begun=at_work, written=_note, **asdict(asked))
    say(f"[bold]{escape(str(diagnosis).splitlines()[0])}[/bold]\n")
    for name, text in diagnosis.verdicts().items():
        say(f"[bold]{name}[/bold]: {escape(text)}\n")
    names = ", ".join(file.name for file in files)
    say(f"Written to [bold]{escape(shown(files[0].parent))}[/bold]: {names}")


def report(run: Path, out: Path | None, force: bool) -> None:
    """Write the page of ``run``; in its folder the one that was made before is replaced."""
    _check_task(run, "report")
    own = out is None and is_page(run / PAGE)
    target = run / PAGE if out is None else out
    if run.is_dir():
        check_out(target, force or own, run)
    written = write_report(run, out, at_work)
    _note(written)
    say(f"Written: [bold]{escape(shown(written))}[/bold], to be opened in a browser")


def _note(path: Path) -> None:
    _ending.note(f"{shown(path)} is written.")


def _check_task(run: Path, command: str) -> None:
    if task_of(run) == "text":
        raise OptionError(
            f"bptt {command} is of runs that forecast a table, but {shown(run)} is of a text: bptt "
            f"predict {shown(run)} samples it, and tells how well it predicts another text."
        )
