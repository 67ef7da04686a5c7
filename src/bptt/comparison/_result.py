"""What a comparison found: runs, a table, JSON, a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from bptt.comparison._meter import Budget
from bptt.errors import OptionError
from bptt.files import write_text

GOES = 0.9
"""The default target: so much of the way from the first loss to BPTT's last."""


@dataclass
class Run:
    """One method from one start: what was spent, and the lowest loss until then.

    Attributes:
        method: its name.
        start: the number of the start.
        seconds, evaluations, losses: after the same updates, the first before any.
        note: why it ended.
    """

    method: str
    start: int
    seconds: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    note: str = ""

    def add(self, seconds: float, evaluations: int, loss: float) -> None:
        """Note a loss, if it is lower than all before it, else the lowest of those."""
        lowest = min(self.losses, default=math.inf)
        self.seconds.append(seconds)
        self.evaluations.append(evaluations)
        self.losses.append(loss if loss < lowest else lowest)

    def until(self, target: float, by: str) -> float:
        """What was spent, in seconds or evaluations, when the loss was first at most ``target``."""
        for spent, loss in zip(getattr(self, by), self.losses, strict=True):
            if loss <= target:
                return float(spent)
        return math.inf


@dataclass(frozen=True)
class Row:
    """A method's line in the table, over all starts; infinite where most runs fell short.

    Attributes:
        method: its name.
        loss, low, high: the median of the last losses, the lowest and the highest.
        reached: how many runs reached the target.
        seconds, evaluations: to the target, medians.
        times_seconds, times_evaluations: how many times what the reference took.
    """

    method: str
    loss: float
    low: float
    high: float
    reached: int
    seconds: float
    evaluations: float
    times_seconds: float
    times_evaluations: float


@dataclass(frozen=True)
class Comparison:
    """Runs of several methods under one budget.

    Attributes:
        runs: every method from every start.
        budget: what each might spend.
        wanted: the target that was asked for, or None.
        name: of the task.
        loss: its name.
    """

    runs: list[Run]
    budget: Budget
    wanted: float | None = None
    name: str = ""
    loss: str = "loss"

    @property
    def methods(self) -> list[str]:
        """In the order in which they were given."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def reference(self) -> str:
        """What the others are measured by: full BPTT, else the first."""
        return "full" if "full" in self.methods else self.methods[0]

    @property
    def target(self) -> float:
        """The loss to reach."""
        if self.wanted is not None:
            return self.wanted
        runs = self.of(self.reference)
        first = float(np.median([run.losses[0] for run in runs]))
        last = float(np.median([run.losses[-1] for run in runs]))
        return first + GOES * (last - first)

    def of(self, method: str) -> list[Run]:
        """The runs of one method."""
        return [run for run in self.runs if run.method == method]

    def table(self) -> list[Row]:
        """A row for each method."""
        target, base = self.target, self._medians(self.reference)
        rows = []
        for method in self.methods:
            last = [run.losses[-1] for run in self.of(method)]
            spent = self._medians(method)
            rows.append(
                Row(
                    method,
                    float(np.median(last)),
                    min(last),
                    max(last),
                    sum(loss <= target for loss in last),
                    *spent,
                    *(_ratio(one, other) for one, other in zip(spent, base, strict=True)),
                )
            )
        return rows

    def _medians(self, method: str) -> tuple[float, float]:
        found = []
        for by in ("seconds", "evaluations"):
            spent = sorted(run.until(self.target, by) for run in self.of(method))
            found.append(spent[len(spent) // 2])  # of an even number the worse, never a mean
        return found[0], found[1]

    def __str__(self) -> str:
        starts = len(self.of(self.methods[0]))
        lines = [
            f"{self.name or 'Comparison'}: {starts} start(s), {self.budget} each; target "
            f"{self.loss} {self.target:.4g}",
            f"{'method':22}{'loss: median':>14}{'lowest':>10}{'highest':>10}{'reached':>9}"
            f"{'seconds':>10}{'evaluations':>13}{'× time':>9}{'× evals':>9}",
        ]
        for row in self.table():
            lines.append(
                f"{row.method:22}{row.loss:14.4g}{row.low:10.4g}{row.high:10.4g}"
                f"{f'{row.reached}/{starts}':>9}{_number(row.seconds):>10}"
                f"{_number(row.evaluations):>13}{_number(row.times_seconds):>9}"
                f"{_number(row.times_evaluations):>9}"
            )
        return "\n".join(lines)

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write everything: task, budget, target, table and runs; what is infinite is null."""
        content: dict[str, Any] = {
            "name": self.name,
            "loss": self.loss,
            "budget": asdict(self.budget),
            "reference": self.reference,
            "target": self.target,
            "table": [_finite(asdict(row)) for row in self.table()],
            "runs": [_finite(asdict(run)) for run in self.runs],
        }
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def figure(self, path: str | PathLike[str]) -> None:
        """Draw loss against time and against evaluations: the median over starts, and from the
        lowest to the highest.

        Raises:
            BpttError: matplotlib is not installed.
        """
        from bptt.comparison._picture import draw

        draw(self, Path(path))

    def band(self, method: str, by: str, grid: Any) -> Any:
        """The lowest, median and highest loss [3, grid] when so much was spent, over starts."""
        if by not in ("seconds", "evaluations"):
            raise OptionError(f"by={by!r}: 'seconds' or 'evaluations'.")
        curves = []
        for run in self.of(method):
            index = np.searchsorted(getattr(run, by), grid, side="right") - 1
            curves.append(np.asarray(run.losses)[np.maximum(index, 0)])
        return np.stack([np.min(curves, 0), np.median(curves, 0), np.max(curves, 0)])


def _ratio(one: float, other: float) -> float:
    if not math.isfinite(other):
        return math.inf
    return one / max(other, 1e-12)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
