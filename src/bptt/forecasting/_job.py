"""What a run was begun with, on disk from its first moment, so that it can go on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bptt.errors import BpttError, DataError
from bptt.forecasting._options import Options
from bptt.forecasting._series import MISSING

JOB, CHECKPOINTS = "job.json", "checkpoints"

FORMAT = 1
"""Of ``job.json``; raised when an older reader would fail."""


@dataclass(frozen=True)
class Job:
    """A training run as it was asked for.

    Attributes:
        data: the table; None for the sunspot numbers.
        inputs, target: its columns; no target where it has but one.
        missing: what missing targets mean.
        options: how to train.
        jobs: how many starts run at once.
        every: how often to save, see `bptt.Checkpoint`.
    """

    data: Path | None
    inputs: tuple[str, ...]
    target: str | None
    missing: str
    options: Options
    jobs: int | None = None
    every: str | int = "30s"


def begin(folder: Path, job: Job) -> Path:
    """Note in ``folder`` what is about to be done there; the checkpoints of an earlier run go.

    Returns:
        The folder for the checkpoints.
    """
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    note(folder, job)
    return folder / CHECKPOINTS


def note(folder: Path, job: Job) -> None:
    """Write ``job.json``, all of it or nothing."""
    data = None if job.data is None else str(job.data.absolute())
    content = {"format": FORMAT, **asdict(job), "data": data}
    unfinished = folder / f".{JOB}"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / JOB)


def begun(folder: Path) -> Job:
    """What the run in ``folder`` was begun with.

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
        job = _parse(content) if written == FORMAT else None
    except (KeyError, TypeError, ValueError, OSError, RecursionError, BpttError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path} is damaged: {reason}. Begin the run again.") from error
    if job is None:
        raise DataError(
            f"{path} has format {written!r}; this version of bptt reads up to {FORMAT}: update it "
            "with `pip install --upgrade bptt`."
        )
    return job


def _parse(content: dict[str, Any]) -> Job:
    inputs, target, data = content["inputs"], content["target"], content["data"]
    if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
        raise ValueError("inputs are no list of names")
    if not all(value is None or isinstance(value, str) for value in (target, data)):
        raise ValueError("data or target is no name")
    if content["missing"] not in MISSING:
        raise ValueError(f"missing is {content['missing']!r}")
    jobs, every = content["jobs"], content["every"]
    if not (jobs is None or isinstance(jobs, int)) or not isinstance(every, (str, int)):
        raise ValueError("jobs or every is of another kind")
    return Job(
        None if data is None else Path(data),
        tuple(inputs),
        target,
        content["missing"],
        Options(**content["options"]),
        jobs,
        every,
    )
