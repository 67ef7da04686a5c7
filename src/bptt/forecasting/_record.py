"""What ``run.json`` says: how a run was made, what it needs to run again, how well it did."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bptt.errors import BpttError, DataError, is_number, reason
from bptt.forecasting._linear import MAX_ORDER
from bptt.forecasting._model import Tapped
from bptt.forecasting._options import Options
from bptt.forecasting._scaling import Scaling
from bptt.forecasting._series import MISSING
from bptt.forecasting._train import Result
from bptt.training import History

FORMAT = 1
"""Of ``run.json`` and ``model.safetensors`` together; raised when an older reader would fail."""

LATER = frozenset({"starts", "on_nonfinite", "lanes"})
"""Options that older runs lack, and whose defaults are what those did."""


@dataclass(frozen=True)
class Record:
    """A run without its weights.

    Attributes:
        options: how it was trained.
        input_names, target_name: the columns.
        missing: how missing targets were treated.
        scaling: fitted on the training part.
        taps: steps in the network's delay line.
        about: data, split, training, metrics and versions, for people and not for loading.
    """

    options: Options
    input_names: tuple[str, ...]
    target_name: str
    missing: str
    scaling: Scaling
    taps: int
    about: dict[str, Any]

    @property
    def features(self) -> int:
        """How many numbers the network reads in a step."""
        return len(self.input_names) + (0 if self.options.simulate else 1)

    @classmethod
    def of(cls, result: Result) -> Record:
        """The record of a training result."""
        plan, forecaster = result.plan, result.forecaster
        cell = forecaster.network.cell
        assert isinstance(cell, Tapped)
        return cls(
            plan.options,
            forecaster.input_names,
            forecaster.target_name,
            plan.missing,
            plan.scaling,
            cell.taps,
            _about(result),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        return {
            "format": FORMAT,
            "options": asdict(self.options),
            "inputs": list(self.input_names),
            "target": self.target_name,
            "missing": self.missing,
            "scaling": asdict(self.scaling),
            "taps": self.taps,
            **self.about,
        }

    @classmethod
    def from_json(cls, content: Any, path: Path) -> Record:
        """Read and check the content of ``run.json``.

        Raises:
            DataError: it is of a newer format, or something is absent or of the wrong kind.
        """
        if not isinstance(content, dict):
            raise DataError(f"{path} is damaged: it holds no JSON object. Fit the run again.")
        written = content.get("format")
        if isinstance(written, int) and written > FORMAT:
            raise DataError(
                f"{path} has format {written}; this version of bptt reads up to {FORMAT}: update "
                "it with `pip install --upgrade bptt`."
            )
        try:
            record = _parse(content)
        except (KeyError, TypeError, ValueError, BpttError) as error:
            raise DataError(f"{path} is damaged: {reason(error)}. Fit the run again.") from error
        return record


def _parse(content: dict[str, Any]) -> Record:
    if content["format"] != FORMAT:
        raise ValueError(f"format is {content['format']!r}")
    options = Options(**_known(content["options"], Options))
    names = content["inputs"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("inputs are no list of names")
    if not isinstance(content["target"], str) or content["missing"] not in MISSING:
        raise ValueError("target or missing is no known word")
    scaling = _scaling(content["scaling"], len(names))
    taps = content["taps"]
    if not isinstance(taps, int) or not 1 <= taps <= MAX_ORDER:
        raise ValueError(f"taps is {taps!r}")
    return Record(options, tuple(names), content["target"], content["missing"], scaling, taps, {})


def _known(content: Any, kind: type[Options]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    if not isinstance(content, dict) or not names - LATER <= content.keys() <= names:
        raise ValueError(f"options are not the {len(names)} that are known")
    return content


def _scaling(content: Any, inputs: int) -> Scaling:
    found = Scaling(
        tuple(content["input_mean"]),
        tuple(content["input_deviation"]),
        content["target_mean"],
        content["target_deviation"],
    )
    means = [*found.input_mean, found.target_mean]
    deviations = [*found.input_deviation, found.target_deviation]
    if not len(means) == len(deviations) == inputs + 1:
        raise ValueError("scaling has another number of inputs")
    if not all(is_number(value) for value in means + deviations) or min(deviations) <= 0:
        raise ValueError("scaling holds something other than numbers and positive deviations")
    return found


def _about(result: Result) -> dict[str, Any]:
    plan, history = result.plan, result.history
    split = plan.split
    return {
        "data": {
            "source": plan.series.source,
            "rows": split.total,
            "training": split.train,
            "validation": split.fitted - split.train,
            "test": split.total - split.fitted,
        },
        "training": {
            "epochs": len(history),
            "best_epoch": history.best_epoch,
            "stop_reason": history.stop_reason,
            "seconds": round(sum(epoch.seconds for epoch in history.epochs), 3),
            **_starts(history),
        },
        "metrics": [asdict(metrics) for metrics in result.metrics],
        "versions": {
            "bptt": _version("bptt"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def _starts(history: History) -> dict[str, Any]:
    """How every start ended, where there were several."""
    if history.start is None:
        return {}
    return {
        "start": history.start,
        "starts": [
            {
                "number": start.number,
                "loss": None if start.error else start.loss,
                "epoch": start.epoch,
                "epochs": len(start.losses),
                "stop_reason": start.stop_reason,
                "error": start.error,
            }
            for start in history.starts
        ],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
