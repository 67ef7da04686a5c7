"""What ``run.json`` says: how a run was made, what it needs to run again, how well it did."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bptt.errors import BpttError, DataError, is_number, reason
from bptt.files import check_format
from bptt.forecasting.data._scaling import Scaling
from bptt.forecasting.data._select import MISSING
from bptt.forecasting.data._units import KINDS, Units
from bptt.forecasting.linear._linear import TRANSFORMS, Linear, Part
from bptt.forecasting.model._forecaster import Reader
from bptt.forecasting.model._options import Options
from bptt.forecasting.runs._train import Result
from bptt.training import History

FORMAT = 3
"""Of ``run.json`` and ``model.safetensors`` together; raised when an older reader would fail, and
then added to those that `bptt.runs` knows."""

PART = ("transform", "center", "scale", "bias", "share", "first", "last")
"""What is said of a part of a linear model, but for its weights."""

PARTS = 32
"""Parts that a linear model may have."""

MOST = 2**20
"""Steps that a model may look back."""


@dataclass(frozen=True)
class Record:
    """A run without its weights.

    Attributes:
        options: how it was trained.
        input_names, target_name: the columns.
        missing: how missing targets were treated.
        reader: what the network reads; the weights of its linear model are zeros.
        gain, spread: see `bptt.forecasting.Forecaster`.
        time, group: the columns of times and of groups, if any.
        trained: of each series by its name, how many rows it was trained or validated on, and their
            checksum, see `bptt.forecasting.seen`.
        units: of the target, in which each series is read.
        about: data, split, training, metrics and versions, for people and not for loading.
    """

    options: Options
    input_names: tuple[str, ...]
    target_name: str
    missing: str
    reader: Reader
    gain: float
    spread: float
    time: str | None
    group: str | None
    trained: dict[str, tuple[int, str]]
    units: Units
    about: dict[str, Any]

    @property
    def features(self) -> int:
        """How many numbers the network reads in a step."""
        past = 0 if self.options.simulate else 2 + len(self.reader.seasons)
        return len(self.input_names) + past

    @classmethod
    def of(cls, result: Result) -> Record:
        """The record of a training result."""
        plan, forecaster = result.plan, result.forecaster
        return cls(
            plan.options,
            forecaster.input_names,
            forecaster.target_name,
            plan.missing,
            forecaster.reader,
            forecaster.gain,
            forecaster.spread,
            forecaster.time_name,
            forecaster.group_name,
            dict(forecaster.trained),
            forecaster.units,
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
            "units": {
                "kind": self.units.kind,
                "of": {k: list(v) for k, v in self.units.of.items()},
            },
            "scaling": asdict(self.reader.scaling),
            "seasons": list(self.reader.seasons),
            "linear": _described(self.reader.linear),
            "gain": self.gain,
            "spread": self.spread,
            "time": self.time,
            "group": self.group,
            "trained": {label: list(one) for label, one in self.trained.items()},
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
        if type(written) is int and 1 <= written < FORMAT:
            raise DataError(
                f"{path} is of a version of bptt whose linear model was another: fit the run again."
            )
        check_format(path, written, FORMAT)
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
    seasons = content["seasons"]
    if not isinstance(seasons, list) or not all(type(n) is int and 2 <= n < MOST for n in seasons):
        raise ValueError(f"seasons are {seasons!r}")
    gain, spread = content["gain"], content["spread"]
    if not (is_number(gain) and is_number(spread) and gain >= 0 and spread > 0):
        raise ValueError("gain or spread is no such number")
    linear = _linear(content["linear"], len(names), options.simulate)
    reader = Reader(scaling, linear, options.ahead, tuple(seasons), options.simulate)
    time, group = content["time"], content["group"]
    if not all(name is None or isinstance(name, str) for name in (time, group)):
        raise ValueError("time or group is no name")
    return Record(
        options,
        tuple(names),
        content["target"],
        content["missing"],
        reader,
        gain,
        spread,
        time,
        group,
        _checksums(content["trained"]),
        _units(content["units"]),
        {},
    )


def _checksums(content: Any) -> dict[str, tuple[int, str]]:
    if not isinstance(content, dict):
        raise ValueError("the rows that were trained on are no JSON object")
    for one in content.values():
        if not (isinstance(one, list) and len(one) == 2):
            raise ValueError("the rows that were trained on are no pairs")
        if not (type(one[0]) is int and one[0] > 0 and isinstance(one[1], str)):
            raise ValueError("the rows that were trained on are no number and checksum")
    return {label: (rows, told) for label, (rows, told) in content.items()}


def _units(content: Any) -> Units:
    kind, of = content["kind"], content["of"]
    if kind not in KINDS or not isinstance(of, dict):
        raise ValueError("units are of no known kind")
    for one in of.values():
        if not (
            isinstance(one, list) and len(one) == 2 and all(map(is_number, one)) and one[1] > 0
        ):
            raise ValueError("units hold something other than a zero and a positive unit")
    return Units(kind, {label: (float(zero), float(size)) for label, (zero, size) in of.items()})


def _described(linear: Linear) -> dict[str, Any]:
    """A linear model but for its weights."""
    parts = [
        {name: getattr(part, name) for name in PART} | {"order": len(part.weight)}
        for part in linear.parts
    ]
    bounds = {name: getattr(linear, name) for name in ("reach", "low", "high")}
    return {"name": linear.name, "parts": parts, **bounds}


def _linear(content: dict[str, Any], inputs: int, simulate: bool) -> Linear:
    """A linear model whose weights are zeros."""
    parts: list[Part] = []
    if not 1 <= len(content["parts"]) <= PARTS:
        raise ValueError("the linear model has no such number of parts")
    for part in content["parts"]:
        numbers = [part[name] for name in ("center", "scale", "bias", "share")]
        order = part["order"]
        if part["transform"] not in TRANSFORMS or not all(map(is_number, numbers)):
            raise ValueError("a part of the linear model is of no known kind")
        if type(order) is not int or not 1 <= order < MOST or numbers[1] <= 0:
            raise ValueError(f"a part of the linear model has the order {order!r}")
        weight = np.zeros((order, inputs + (not simulate)))
        center, scale, bias, share = map(float, numbers)
        first, last = part["first"], part["last"]
        ends = [first] if last is None else [first, last]
        if not all(type(end) is int and 0 <= end < MOST for end in ends):
            raise ValueError("a part of the linear model has no such rows")
        parts.append(Part(part["transform"], center, scale, weight, bias, share, first, last))
    bounds = [content[name] for name in ("reach", "low", "high")]
    if not all(map(is_number, bounds)) or not isinstance(content["name"], str):
        raise ValueError("the linear model is incomplete")
    reach, low, high = map(float, bounds)
    return Linear(content["name"], tuple(parts), simulate, reach, low, high)


def _known(content: Any, kind: type[Options]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    if not isinstance(content, dict) or content.keys() != names:
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
            "rows": split.fitted if plan.tested else split.total,
            "training": split.train,
            "validation": split.fitted - split.train,
            "test": split.total - split.fitted,
            "series": sum(rows > 0 for rows in split.training),
            "test_data": plan.tested,
            "errors_on": "test" if split.tests else "validation",
        },
        "training": {
            "epochs": len(history),
            "best_epoch": history.best_epoch,
            "stop_reason": history.stop_reason,
            "seconds": round(sum(epoch.seconds for epoch in history.epochs), 3),
            **_starts(history),
        },
        "metrics": [asdict(metrics) for metrics in result.metrics],
        **_groups(result),
        "versions": {
            "bptt": _version("bptt"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def _groups(result: Result) -> dict[str, Any]:
    """The errors on each series, where there are several."""
    if result.plan.series.group_name is None:
        return {}
    return {
        "groups": [
            {"group": one.name, **{k: v for k, v in asdict(one).items() if k != "name"}}
            for one in result.groups
        ]
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
