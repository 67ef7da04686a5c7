"""``bptt fit``: read, check, train, test, write."""

from __future__ import annotations

import shlex
import signal
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.markup import escape

from bptt.cli._processes import decided, first, joined, started_again
from bptt.cli._show import FAILED, leave, say, show_metrics
from bptt.errors import NonFiniteError, OptionError
from bptt.forecasting import (
    Job,
    Options,
    Plan,
    Result,
    Series,
    begin,
    begun,
    check_folder,
    note,
    plan,
    read_table,
    save,
    select,
    sunspots,
    train,
)
from bptt.forecasting._job import CHECKPOINTS
from bptt.training import Checkpoint, History, Interrupted

DEFAULTS = Options()


@dataclass(frozen=True)
class Output:
    """Where the run goes, ``None`` for the first free name, and what is shown.

    Attributes:
        save: whether training is saved while it goes on.
    """

    folder: Path | None
    force: bool
    quiet: bool
    save: bool = True


@dataclass(frozen=True)
class Changes:
    """What may be other than recorded when a run goes on; None leaves it as it was."""

    epochs: int | None = None
    jobs: int | None = None
    on_nonfinite: str | None = None
    every: str | int | None = None


def names(text: str) -> tuple[str, ...]:
    """Column names out of ``"A,B"``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def every(text: str) -> str | int | None:
    """How often to save, out of ``"30s"``, ``"500"`` (updates) or ``"never"``."""
    found = int(text) if text.isdecimal() else None if text == "never" else text
    if found is not None:
        Checkpoint("", every=found)  # refuses before work
    return found


def run(job: Job, output: Output) -> None:
    """Train as ``job`` says, and leave the run in ``output``."""
    with joined():
        if started_again() and output.save:
            begun_before = decided(lambda: output.folder or _free_folder()[1])
            if (begun_before / CHECKPOINTS).is_dir():
                _go_on(begun_before, Changes(), False, output.quiet)
                return
        _begin(job, output)


def _begin(job: Job, output: Output) -> None:
    folder = chosen(output)
    if job.jobs is not None and job.options.starts == 1:
        raise OptionError("--jobs says how many starts run at once: give --starts as well.")
    made = _planned(job)
    _announce(made)
    saved = decided(lambda: begin(folder, job)) if output.save else None
    checkpoint = None if saved is None else Checkpoint(saved, every=job.every)
    _train(made, job, folder, checkpoint, False, output)


def go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> None:
    """Go on with the run in ``folder``, with the data and options that it was begun with."""
    with joined():
        _go_on(folder, changes, force, quiet)


def _go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> None:
    job = begun(folder)
    asked = {"epochs": changes.epochs, "on_nonfinite": changes.on_nonfinite}
    options = {name: value for name, value in asked.items() if value is not None}
    job = replace(
        job,
        options=replace(job.options, **options),  # type: ignore[arg-type]  # by their names
        jobs=job.jobs if changes.jobs is None else changes.jobs,
        every=job.every if changes.every is None else changes.every,
    )
    made = _planned(job)
    _announce(made)
    if first():
        note(folder, job)
    checkpoint = Checkpoint(folder / CHECKPOINTS, every=job.every)
    resume: bool | Literal["force"] = "force" if force else True
    _train(made, job, folder, checkpoint, resume, Output(folder, True, quiet))


def _train(
    made: Plan,
    job: Job,
    folder: Path,
    checkpoint: Checkpoint | None,
    resume: bool | Literal["force"],
    output: Output,
) -> None:
    again = f"bptt fit --resume {shlex.quote(str(folder))}"
    try:
        with _left_at_once(job.options.starts == 1):
            result = train(made, not output.quiet, job.jobs, checkpoint, resume)
    except Interrupted as stopped:
        leave("Stopped", f"Training is saved. Go on with\n\n  {again}", 128 + stopped.signal)
    except NonFiniteError as error:
        go_on = f"{again} --on-nonfinite skip (or rollback)"
        kept = f"\n\nThe last checkpoint before it is kept. Go on with\n\n  {go_on}"
        kept = kept if checkpoint else ""
        leave("Training stopped", f"{error}{kept}", FAILED)
    if not first():
        return
    _report(result)
    files = save(result, folder, output.force or checkpoint is not None)
    say(f"Written to [bold]{escape(str(folder))}[/bold]: {', '.join(file.name for file in files)}")


@contextmanager
def _left_at_once(alone: bool) -> Iterator[None]:
    """Within, a Ctrl-C that training does not take in ends the process, native code and all.

    Args:
        alone: whether there are no worker processes to be taken along.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not (alone and main and before is signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def chosen(output: Output) -> Path:
    """The folder that a new run goes to, the same in all processes; refused where it cannot.

    Without a name it is the first of ``bptt-run``, ``bptt-run-2``, … that is not there.
    """

    def choose() -> Path:
        folder = _free_folder()[0] if output.folder is None else output.folder
        check_folder(folder, output.force)
        return folder

    return decided(choose)


def _free_folder() -> tuple[Path, Path]:
    """The first free name, and the one before it."""
    count, last, folder = 1, Path("bptt-run"), Path("bptt-run")
    while folder.exists():
        count += 1
        last, folder = folder, Path(f"bptt-run-{count}")
    return folder, last


def read_series(
    data: Path | None, inputs: tuple[str, ...], target: str | None, missing: str
) -> Series:
    """The chosen columns of a table, or the series that the package carries."""
    if data is not None:
        return select(read_table(data), inputs, target, missing)
    if inputs or target:
        raise OptionError(
            "--inputs and --target name columns of DATA, and none is given: bptt fit DATA --inputs "
            "A,B --target Y. Without DATA the sunspot numbers are forecast from their own past."
        )
    return sunspots()


def _planned(job: Job) -> Plan:
    series = read_series(job.data, job.inputs, job.target, job.missing)
    return plan(series, job.options, job.missing)


def _announce(plan: Plan) -> None:
    series, options, split = plan.series, plan.options, plan.split
    past = "" if options.simulate else f"the past of {series.target_name}"
    seen = ", ".join(filter(None, [*series.input_names, past]))
    ahead = f"{options.ahead} step{'s' * (options.ahead != 1)} ahead"
    ahead = ahead if options.ahead else "at the same step"
    say(
        f"[bold]{'Simulating' if options.simulate else 'Predicting'} "
        f"{escape(series.target_name)}[/bold] {ahead} from {escape(seen)}"
    )
    say(
        f"{escape(series.source)}: {split.total} rows; {split.train} to train, "
        f"{split.fitted - split.train} to validate, {split.total - split.fitted} to test"
    )


def _report(result: Result) -> None:
    history = result.history
    if history.start is not None:
        _report_starts(history)
    kept = (
        f"epoch {history.best_epoch} was kept"
        if history.best_epoch
        else "no epoch was better on the validation part than the linear path alone, which was kept"
    )
    say(f"Stopped after {len(history)} epochs ({history.stop_reason}); {kept}.\n")
    show_metrics(result.metrics, result.plan.series.target_name)


def _report_starts(history: History) -> None:
    losses = sorted(start.loss for start in history.starts if start.error is None)
    failed = len(history.starts) - len(losses)
    say(
        f"Start {history.start} of {len(history.starts)} was kept, with a validation loss of "
        f"{losses[0]:.4g}; median {statistics.median(losses):.4g}, worst {losses[-1]:.4g}"
        f"{f'; {failed} failed' if failed else ''}."
    )
