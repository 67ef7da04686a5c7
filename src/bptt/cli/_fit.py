"""``bptt fit``: read, check, train, test, write; and go on with what was broken off."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from bptt import _ending, forecasting, text
from bptt._ending import world
from bptt.cli import _forecast, _text
from bptt.cli._place import check_not_data, free, held
from bptt.cli._place import made as made_before
from bptt.cli._processes import agreed, decided, first, joined, started_again
from bptt.cli._ready import Ready, Resume
from bptt.cli._show import FAILED, at_work, is_at_work, leave, say, stop
from bptt.drawing import apart
from bptt.errors import BpttError, DataError, NonFiniteError, OptionError, ProcessError
from bptt.files import shown, why
from bptt.runs import (
    JOB,
    RECORD,
    WRITTEN,
    Job,
    Made,
    begin,
    begun,
    check_folder,
    check_free,
    forget,
    going_on,
    list_pictures,
    note,
    put,
    replacements,
    trained,
)
from bptt.training import Checkpoint, Interrupted, Moved, Place

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
    number = text.isdecimal() and len(text) < 19
    found = int(text) if number else None if text == "never" else text
    if found is not None:
        Checkpoint("", every=found)  # refuses before work
    return found


def run(job: Job, output: Output) -> bool:
    """Train as ``job`` says, and leave the run in ``output``; whether it is better than the
    simplest model."""
    with joined():
        if started_again() and output.save:
            before = decided(lambda: _begun_before(job, output))
            if before is not None:
                return _go_on(before, Changes(), False, output.quiet)
        return _begin(job, output)


def _begun_before(job: Job, output: Output) -> Path | None:
    """Where the same job was begun, by an attempt that failed; None where it was not, be it that
    another run is there."""
    same = replace(job, data=None if job.data is None else job.data.absolute())
    for folder in made_before() if output.folder is None else [output.folder]:
        finished = (folder / RECORD).exists() and not replacements(folder)
        if finished and (output.force or output.folder is None):
            continue  # of before
        try:
            if begun(folder, TASKS) == same:
                return folder
        except DataError:
            continue
    return None


def _begin(job: Job, output: Output) -> bool:
    def choose() -> Path:
        if output.folder is None:
            return free()
        check_folder(output.folder, output.force)
        return output.folder

    def check(folder: Path) -> None:
        check_folder(folder, output.force)
        for name in (*WRITTEN, JOB):
            check_not_data(folder / name, job.data)
            check_not_data(folder / name, getattr(job, "test_data", None))

    with held(choose, check, new=output.folder is None) as place:
        ready = agreed(lambda: TASKS[type(job)](job))
        place.check()  # reading the data may have taken long
        if not output.save:
            _ending.note("Nothing is saved: --checkpoint never.")
            return _train(ready, place, None, False, output.quiet)
        saved = decided(lambda: begin(place.folder, job))
        _ending.note(f"The run is noted. Begin it again with: {_again(place.folder)}")
        try:
            return _train(ready, place, Checkpoint(saved, every=job.every), False, output.quiet)
        except typer.Exit:
            raise  # it was stopped by a signal, or told, and goes on
        except BaseException:
            if first() and place.is_there():
                forget(place.folder, saved)
            raise


def go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> bool:
    """Go on with the run in ``folder``, with the data and options that it was begun with; whether
    it is better than the simplest model."""
    with joined():
        return _go_on(folder, changes, force, quiet)


def _go_on(folder: Path, changes: Changes, force: bool, quiet: bool) -> bool:
    agreed(lambda: begun(folder, TASKS))  # there is one: else no folder is made
    _ending.note(_how(folder))
    # What is not free could not be written at the end.
    with held(lambda: folder, check_free) as place:
        job = changes.of(begun(folder, TASKS))
        _check_epochs(folder, changes.options.get("epochs"))
        ready = agreed(lambda: TASKS[type(job)](job))
        # What changes is noted when training goes on, after every check.
        place_of_job, saved = going_on(folder)
        noted = partial(note, place_of_job, job)
        checkpoint = Checkpoint(saved, every=job.every, begun=noted)
        place.check()
        return _train(ready, place, checkpoint, "force" if force else True, quiet)


def _check_epochs(folder: Path, asked: int | None) -> None:
    """Refuse fewer epochs than a finished run has trained: its record would not be true.

    Raises:
        OptionError: there are fewer.
    """
    done = None if replacements(folder) else trained(folder)
    if asked is not None and done is not None and asked < done:
        raise OptionError(
            f"{shown(folder)} has trained {done} epochs, and --epochs counts them: give {done} or "
            "more."
        )


def _how(folder: Path) -> str:
    """How to go on with a run, in words."""
    return f"Training is saved. Go on with: {_again(folder)}"


def _again(folder: Path) -> str:
    several = f"torchrun --nproc-per-node {world()} -m " if world() > 1 else ""
    return f"{several}bptt fit --resume {shlex.quote(shown(folder))}"


def _train(
    ready: Ready[Any], place: Place, checkpoint: Checkpoint | None, resume: Resume, quiet: bool
) -> bool:
    """Train, and leave the run; whether it is better than the simplest model."""
    folder = place.folder
    if checkpoint is not None:
        checkpoint = replace(checkpoint, begun=partial(_saving, folder, checkpoint.begun))
    try:
        result = ready.train(not quiet, checkpoint, resume)
    except Interrupted as stopped:
        if checkpoint is not None:
            _ending.note(_how(folder))
        stop(stopped.signal)
    except NonFiniteError as error:
        kept = ""
        if checkpoint:
            mend = f"{_again(folder)} --on-nonfinite skip (or rollback)"
            kept = f"\n\nThe last checkpoint before it is kept. Go on with\n\n  {mend}"
        leave("Training stopped", f"{error}{kept}", FAILED)
    except (BpttError, OSError) as error:
        if checkpoint is None or not is_at_work() or isinstance(error, (Moved, ProcessError)):
            raise
        reason = why(error) if isinstance(error, OSError) else str(error)
        leave("Training stopped", f"{reason}\n\n{_mended(folder)}", FAILED)
    at_work()
    if not first():
        return True  # the first process tells
    made = ready.made(result)
    place.check()
    written = _written(made, folder, checkpoint is not None)
    _ending.note(f"The run is written to {shown(folder)}.")
    drawn = apart(folder, made.pictures)
    if len(drawn) < len(made.pictures):
        list_pictures(folder, [path.name for path in drawn])
    written += drawn
    ready.show(result)
    names = ", ".join(sorted(file.name for file in written))
    say(f"Written to [bold]{escape(shown(folder))}[/bold]: {names}")
    return ready.skilled(result)


def _written(made: Made, folder: Path, saved: bool) -> list[Path]:
    """Write the run; what fails is told with the way to go on."""
    try:
        return put(folder, made, saved)
    except (OSError, BpttError) as error:
        size = sum(map(len, made.parts.values()))
        reason = why(error, size) if isinstance(error, OSError) else str(error)
        more = f"\n\n{_mended(folder)}" if saved else ""
        leave("Not written", f"{reason}{more}", FAILED)


def _mended(folder: Path) -> str:
    return f"Training is saved. When that is mended, go on with\n\n  {_again(folder)}"


def _saving(folder: Path, begun: Callable[[], None] | None) -> None:
    """All is checked, and the first checkpoint is there."""
    if begun is not None:
        begun()
    _ending.note(_how(folder))
    at_work()
