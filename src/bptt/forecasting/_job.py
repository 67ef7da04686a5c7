"""A table and how to train on it, as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from bptt import runs
from bptt.forecasting._options import Options
from bptt.forecasting._series import MISSING
from bptt.training import check_jobs


@dataclass(frozen=True, kw_only=True)
class Job(runs.Job):
    """To forecast a column of a table; without one, the sunspot numbers.

    Attributes:
        inputs, target: its columns; no target where it has but one.
        missing: what missing targets mean.
        options: how to train.
        jobs: how many starts run at once.

    Raises:
        OptionError: ``jobs`` is 0.
    """

    task: ClassVar[str] = "forecast"
    inputs: tuple[str, ...]
    target: str | None
    missing: str
    options: Options
    jobs: int | None = None

    def __post_init__(self) -> None:
        check_jobs(self.jobs)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """See `bptt.runs.Job`."""
        inputs, target, jobs = content["inputs"], content["target"], content["jobs"]
        if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
            raise ValueError("inputs are no list of names")
        if not (target is None or isinstance(target, str)):
            raise ValueError("target is no name")
        if content["missing"] not in MISSING:
            raise ValueError(f"missing is {content['missing']!r}")
        if isinstance(jobs, bool) or not (jobs is None or isinstance(jobs, int)):
            raise ValueError("jobs is no number")
        return cls(
            data=content["data"],
            inputs=tuple(inputs),
            target=target,
            missing=content["missing"],
            options=runs.options_of(Options, content["options"]),
            jobs=jobs,
            every=content["every"],
        )
