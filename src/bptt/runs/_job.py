"""What a run was begun with, on disk from its first moment, so that it can go on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from bptt import files
from bptt.errors import BpttError, DataError, reason
from bptt.files import shown
from bptt.runs._folder import CHECKPOINTS, unreadable
from bptt.runs._owned import FORMAT, JOB, owned, remove_saved, replacements
from bptt.training import checkpoints_in


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """A training run as it was asked for; the jobs of a task add what else that needs.

    Attributes:
        task: the name of the task.
        data: the file to learn from; None for the data that the package carries.
        options: how to train, a dataclass.
        every: how often to save, see `bptt.Checkpoint`.
    """

    task: ClassVar[str]
    data: Path | None
    options: Any
    every: str | int = "30s"

    @classmethod
    @abstractmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """The job out of what `content_of` gave; whatever is wrong with it may be raised."""


J = TypeVar("J", bound=Job)
Options = TypeVar("Options")


def begin(folder: Path, job: Job) -> Path:
    """Note in ``folder`` what is about to be done there. Where a run is there already, nothing of
    it changes: the new one is saved in a folder of its own until it takes its place.

    Returns:
        The folder for the checkpoints.
    """
    if not owned(folder) and not replacements(folder):
        note(folder, job)
        return folder / CHECKPOINTS
    # The highest is the newest: a gap between others is not filled.
    taken = (path.name.removeprefix(f"{CHECKPOINTS}-") for path in folder.glob(f"{CHECKPOINTS}-*"))
    number = max([1, *(int(text) for text in taken if text.isdecimal())]) + 1
    saved = folder / f"{CHECKPOINTS}-{number}"
    try:
        files.make_folder(saved)
        note(saved, job)
    except BaseException:
        files.drop_if_empty(saved)
        raise
    return saved


def forget(folder: Path, saved: Path) -> None:
    """Undo `begin`, unless something is saved."""
    if not checkpoints_in(saved):
        place = folder if saved == folder / CHECKPOINTS else saved
        files.remove(place / JOB)
        remove_saved(saved)  # without a job nobody would know whose the seed of starts is


def going_on(folder: Path) -> tuple[Path, Path]:
    """Where the run in ``folder`` that goes on has ``job.json``, and where its checkpoints: one
    that is to take the place of another before that one."""
    newest = replacements(folder)[-1:]
    return (newest[0], newest[0]) if newest else (folder, folder / CHECKPOINTS)


def note(place: Path, job: Job) -> None:
    """Write ``job.json``, all of it or nothing."""
    data = None if job.data is None else str(job.data.absolute())
    content = {"format": FORMAT, "task": job.task, **asdict(job), "data": data}
    text = json.dumps(content, indent=2, allow_nan=False, default=str)  # other paths
    files.write_bytes(place / JOB, f"{text}\n".encode())


def begun(folder: Path, kinds: Iterable[type[J]]) -> J:
    """What the run in ``folder`` was begun with, a job of one of ``kinds``.

    Raises:
        DataError: there is no such run, or what it was begun with is damaged or of a newer version.
    """
    path = going_on(folder)[0] / JOB
    if not path.exists():
        raise DataError(
            f"{shown(folder)} holds no run that can go on: name a folder that `bptt fit --out RUN` "
            "writes its checkpoints to."
        )
    try:
        content = files.json_object(files.read_bytes(path))
        written = content["format"]
        if type(written) is not int:
            raise ValueError(f"format is {written!r}")
        job = _job(content, kinds) if written == FORMAT else None
    except OSError as error:
        raise unreadable(error) from error
    except (KeyError, TypeError, ValueError, BpttError) as error:
        raise DataError(
            f"{shown(path)} is damaged: {reason(error)}. Begin the run again."
        ) from error
    files.check_format(path, written, FORMAT)
    if job is None:
        raise DataError(
            f"{shown(path)} is of an older version of bptt, which trained otherwise: begin the run "
            "again."
        )
    return job


def options_of(kind: type[Options], content: Any) -> Options:
    """The options of a job, out of what was read.

    Raises:
        ValueError: there are others than known ones.
        OptionError: one is out of range.
    """
    if not isinstance(content, dict):
        raise ValueError("options are no JSON object")
    unknown = sorted(content.keys() - {field.name for field in fields(kind)})  # type: ignore[arg-type]  # a dataclass
    if unknown:
        raise ValueError(f"there is no option {unknown[0]!r}")
    return kind(**content)


def _job(content: dict[str, Any], kinds: Iterable[type[J]]) -> J:
    task = content.get("task", "forecast")  # older runs have no other
    kind = next((one for one in kinds if one.task == task), None)
    if kind is None:
        raise ValueError(f"task is {task!r}")
    data, every = content["data"], content["every"]
    if not (data is None or isinstance(data, str)):
        raise ValueError("data is no name")
    if isinstance(every, bool) or not isinstance(every, (str, int)):
        raise ValueError("every is neither a time nor a number")
    return kind.of({**content, "data": None if data is None else Path(data)})
