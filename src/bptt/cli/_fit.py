"""``bptt fit``: read, check, train, test, write; and go on with what was broken off."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from bptt import forecasting, text
from bptt.cli import _forecast, _text
from bptt.cli._processes import decided, first, joined, started_again
from bptt.cli._ready import Ready, Resume
from bptt.cli._show import FAILED, leave, say
from bptt.errors import NonFiniteError, OptionError
from bptt.runs import CHECKPOINTS, Job, begin, begun, check_folder, note
from bptt.training import Checkpoint, Interrupted

TASKS: dict[type[Job], Callable[[Any], Ready[Any]]] = {
    forecasting.Job: _forecast.ready,
    text.Job: _text.ready,
}


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
    """What is to be other than recorded when a run goes on, by name.

    Attributes:
        job: of the job itself.
        options: of its options.
    """

    job: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def of(self, job: Job) -> Job:
        """The job so changed.

        Raises:
            OptionError: its task knows no such thing.
        """
        for given, changed in ((self.job, job), (self.options, job.options)):
            for name in given.keys() - {known.name for known in fields(changed)}:
                raise OptionError(f"--{name} does not go with --task {job.task}.")
        return replace(job, **self.job, options=replace(job.options, **self.options))


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
    folder = _chosen(output)
    ready = TASKS[type(job)](job)
    saved = decided(lambda: begin(folder, job)) if output.save else None
    checkpoint = None if saved is None else Checkpoint(saved, every=job.every)
    _train(ready, folder, checkpoint, False, output)


def go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> None:
    """Go on with the run in ``folder``, with the data and options that it was begun with."""
    with joined():
        _go_on(folder, changes, force, quiet)


def _go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> None:
    job = changes.of(begun(folder, TASKS))
    ready = TASKS[type(job)](job)
    if first():
        note(folder, job)
    checkpoint = Checkpoint(folder / CHECKPOINTS, every=job.every)
    _train(ready, folder, checkpoint, "force" if force else True, Output(folder, True, quiet))


def _train(
    ready: Ready[Any],
    folder: Path,
    checkpoint: Checkpoint | None,
    resume: Resume,
    output: Output,
) -> None:
    again = f"bptt fit --resume {shlex.quote(str(folder))}"
    try:
        with _left_at_once(ready.alone):
            result = ready.train(not output.quiet, checkpoint, resume)
    except Interrupted as stopped:
        leave("Stopped", f"Training is saved. Go on with\n\n  {again}", 128 + stopped.signal)
    except NonFiniteError as error:
        go_on = f"{again} --on-nonfinite skip (or rollback)"
        kept = f"\n\nThe last checkpoint before it is kept. Go on with\n\n  {go_on}"
        kept = kept if checkpoint else ""
        leave("Training stopped", f"{error}{kept}", FAILED)
    if not first():
        return
    ready.show(result)
    files = ready.save(result, folder, output.force or checkpoint is not None)
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


def _chosen(output: Output) -> Path:
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
