"""A table and how to train on it, as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from bptt import runs
from bptt.forecasting.data._select import MISSING
from bptt.forecasting.model._options import Options
from bptt.training import check_jobs


@dataclass(frozen=True, kw_only=True)
class Job(runs.Job):
    """To forecast a column of a table; without one, the sunspot numbers.

    Attributes:
        inputs, target: its columns; no target where it has but one.
        missing: what missing targets mean.
        time: the column of times; None to find it, ``""`` for none.
        group: the column that tells several series apart, if any.
        test_data: another file, to test on.
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
    time: str | None = None
    group: str | None = None
    test_data: Path | None = None

    def __post_init__(self) -> None:
        check_jobs(self.jobs)
        if self.test_data is not None:
            object.__setattr__(self, "test_data", self.test_data.absolute())

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """See `bptt.runs.Job`."""
        inputs, target, jobs = content["inputs"], content["target"], content["jobs"]
        if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
            raise ValueError("inputs are no list of names")
        apart = {name: content.get(name) for name in ("time", "group", "test_data")}
        for name, value in {"target": target, **apart}.items():
            if not (value is None or isinstance(value, str)):
                raise ValueError(f"{name} is no name")
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
            time=apart["time"],
            group=apart["group"],
            test_data=None if apart["test_data"] is None else Path(apart["test_data"]),
            every=content["every"],
        )
