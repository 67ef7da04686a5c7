"""Saturation: how often the squashing functions of a cell sit at their ends.

The shares are those of A. Karpathy, J. Johnson and L. Fei-Fei, Visualizing and understanding
recurrent networks, 2015: a gate is left-saturated below 0.1 and right-saturated above 0.9. For
tanh(x) = 2σ(2x) − 1 that is below −0.8 and above 0.8.
"""

from __future__ import annotations

import ast
import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bptt.diagnostics._trajectory import Trajectory
from bptt.state import State, map_state

_aten = torch.ops.aten
_ENDS: dict[Any, tuple[str, float, float]] = {
    _aten.sigmoid: ("sigmoid", 0.1, 0.9),
    _aten.hardsigmoid: ("hardsigmoid", 0.1, 0.9),
    _aten.tanh: ("tanh", -0.8, 0.8),
    _aten.hardtanh: ("hardtanh", -0.8, 0.8),
    _aten.relu: ("relu", 0.0, float("inf")),
}
STUCK = 0.99
"""A unit that is saturated at one end in this share of the steps is stuck there."""
_SKIPPED = (str(Path(torch.__file__).parent), __file__)


@dataclass(frozen=True)
class Squashed:
    """One squashing function of a cell, over time.

    Attributes:
        name: what the cell's code calls its result, else the function's name and number.
        kind: ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"hardsigmoid"`` or ``"hardtanh"``.
        units: how many it has.
        low, high: shares of units and steps saturated at the lower and the upper end (of relu:
            at zero, and none).
        stuck: the share of units that are saturated at one end in 99 % of the steps.
    """

    name: str
    kind: str
    units: int
    low: float
    high: float
    stuck: float


@torch.no_grad()
def measure_saturation(
    cell: nn.Module, trajectory: Trajectory, steps: Tensor
) -> tuple[Squashed, ...]:
    """The squashing functions that one step of ``cell`` calls, in order, at ``steps``."""
    state: State = map_state(lambda leaf: leaf[steps], trajectory.entering)
    with _Watch() as watch:
        cell(trajectory.inputs[steps], state)
    return tuple(
        _squashed(name, kind, values)
        for name, (kind, values, _) in zip(_names(watch.calls), watch.calls, strict=True)
    )


_Call = tuple[str, Tensor, tuple[str, int] | None]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Remembers the results of squashing functions, whoever calls them and how."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket._qualified_op_name.split("::")[1].removesuffix("_")
        known = _ENDS.get(getattr(_aten, name, None))
        if known is not None and isinstance(result, Tensor):
            self.calls.append((known[0], result.clone(), _caller(sys._getframe())))
        return result


def _caller(frame: FrameType | None) -> tuple[str, int] | None:
    """File and line of the innermost call outside PyTorch."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_SKIPPED) and frame.f_code.co_name != "measure_saturation":
            return file, frame.f_lineno
        frame = frame.f_back
    return None


def _names(calls: list[_Call]) -> list[str]:
    """Names that tell the calls apart: the variables that they are assigned to, where the line
    says it, else the function's name; numbered where several share one."""
    by_line: dict[Any, list[int]] = {}
    for i, (_, _, line) in enumerate(calls):
        by_line.setdefault(line, []).append(i)
    names = [kind for kind, _, _ in calls]
    for line, members in by_line.items():
        targets = _assigned(line)
        if len(targets) == len(members):
            for i, target in zip(members, targets, strict=True):
                names[i] = target
    counts = {name: names.count(name) for name in names}
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(f"{name} {seen[name]}" if counts[name] > 1 else name)
    return found


def _assigned(line: tuple[str, int] | None) -> list[str]:
    """The variables that a source line assigns, if it is an assignment to plain names."""
    if line is None:
        return []
    try:
        statement = ast.parse(linecache.getline(*line).strip()).body
    except SyntaxError:
        return []
    if len(statement) != 1 or not isinstance(statement[0], ast.Assign):
        return []
    target = statement[0].targets[0]
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _squashed(name: str, kind: str, values: Tensor) -> Squashed:
    low, high = next((a, b) for k, a, b in _ENDS.values() if k == kind)
    flat = values.flatten(1)
    below = flat <= low if kind == "relu" else flat < low
    above = flat > high
    stuck = (below.double().mean(0) >= STUCK) | (above.double().mean(0) >= STUCK)
    return Squashed(
        name,
        kind,
        flat.shape[1],
        float(below.double().mean()),
        float(above.double().mean()),
        float(stuck.double().mean()),
    )
