"""What a run was begun with, on disk from its first moment, so that it can go on."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from bptt.errors import BpttError, DataError
from bptt.runs._folder import CHECKPOINTS
from bptt.training._hold import Hold

JOB = "job.json"

FORMAT = 1
"""Of ``job.json``; raised when an older reader would fail."""


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


def begin(folder: Path, job: Job) -> Path:
    """Note in ``folder`` what is about to be done there; the checkpoints of an earlier run go.

    Returns:
        The folder for the checkpoints.

    Raises:
        CheckpointError: another process trains there.
    """
    saved = folder / CHECKPOINTS
    if saved.is_dir():
        with Hold(saved):  # nobody trains there
            shutil.rmtree(saved, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    note(folder, job)
    return saved


def note(folder: Path, job: Job) -> None:
    """Write ``job.json``, all of it or nothing."""
    data = None if job.data is None else str(job.data.absolute())
    content = {"format": FORMAT, "task": job.task, **asdict(job), "data": data}
    unfinished = folder / f".{JOB}"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / JOB)


def begun(folder: Path, kinds: Iterable[type[J]]) -> J:
    """What the run in ``folder`` was begun with, a job of one of ``kinds``.

    Raises:
        DataError: there is no such run, or what it was begun with is damaged or of a newer version.
    """
    path = folder / JOB
    if not path.is_file():
        raise DataError(
            f"{folder} holds no run that can go on: name a folder that `bptt fit --out RUN` writes "
            "its checkpoints to."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        written = content["format"]
        job = _job(content, kinds) if written == FORMAT else None
    except (KeyError, TypeError, ValueError, OSError, RecursionError, BpttError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path} is damaged: {reason}. Begin the run again.") from error
    if job is None:
        raise DataError(
            f"{path} has format {written!r}; this version of bptt reads up to {FORMAT}: update it "
            "with `pip install --upgrade bptt`."
        )
    return job


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
