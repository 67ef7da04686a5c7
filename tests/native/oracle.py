"""A plain interpreter of low-level step programs in NumPy: what the native core must compute.

Written from the contract of `bptt/_core.pyi`, as simply as can be: one row at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

erf = np.vectorize(math.erf, otypes=[float])

UNARY = {
    "copy": lambda a: a + 0,
    "neg": lambda a: -a,
    "abs": np.abs,
    "sign": lambda a: np.where(a > 0, 1.0, 0.0) - np.where(a < 0, 1.0, 0.0),
    "reciprocal": lambda a: 1 / a,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.where(a < 0, 0, a),
    "softplus": lambda a: np.where(a > 20, a, np.log1p(np.exp(a))),
    "erf": erf,
    "not": lambda a: np.where(a == 0, 1.0, 0.0),
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "pow": np.power,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "tanh_backward": lambda g, y: g * (1 - y * y),
    "sigmoid_backward": lambda g, y: g * y * (1 - y),
}
TERNARY = {"mul_add": lambda a, b, c: a * b + c, "where": lambda c, a, b: np.where(c != 0, a, b)}
REDUCTION = {"sum": np.sum, "amax": np.max, "dot": np.dot}


@dataclass
class Case:
    """A program and the arrays of one run; lists by leaf or by index, as the core takes them."""

    program: dict[str, Any]
    steps: int
    batch: int
    states: list[np.ndarray]
    time: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    units: list[np.ndarray] = field(default_factory=list)
    matrices: list[np.ndarray] = field(default_factory=list)
    initial: list[np.ndarray] = field(default_factory=list)
    reset: np.ndarray | None = None
    lengths: np.ndarray | None = None
    clip: float | None = None
    final_grads: list[np.ndarray | None] = field(default_factory=list)
    step_grads: list[np.ndarray | None] = field(default_factory=list)
    start_grads: list[np.ndarray | None] = field(default_factory=list)
    initial_grads: list[np.ndarray | None] = field(default_factory=list)


def interpret(case: Case) -> None:
    """Run a case in place."""
    with np.errstate(all="ignore"):
        for lane in range(case.batch):
            (_reverse if case.program["reverse"] else _forward)(case, lane)


def _is_over(case: Case, t: int, lane: int) -> bool:
    return case.lengths is not None and t >= case.lengths[lane]


def _is_reset(case: Case, t: int, lane: int) -> bool:
    return case.reset is not None and bool(case.reset[t, lane])


def _spaces(case: Case, t: int, lane: int) -> dict[str, list[np.ndarray]]:
    """The rows that a step of a lane sees, by space; writing into a row writes into its array."""
    state = case.initial if _is_reset(case, t, lane) else [s[t] for s in case.states]
    return {
        "scratch": [np.full(w, np.nan) for w in case.program.get("scratch", ())],
        "time": [x[t, lane] for x in case.time],
        "row": [x[lane] for x in case.rows],
        "unit": case.units,
        "state": [s[lane] for s in state],
        "next": [s[t + 1, lane] for s in case.states],
    }


def _written(case: Case) -> list[np.ndarray]:
    return [
        x
        for x, (_, mode) in zip(case.time, case.program.get("time", ()), strict=True)
        if mode == "w"
    ]


def _forward(case: Case, lane: int) -> None:
    for t in range(case.steps):
        if _is_over(case, t, lane):
            for state in case.states:
                state[t + 1, lane] = state[t, lane]
            for x in _written(case):
                x[t, lane] = 0
        else:
            _step(case, _spaces(case, t, lane))


def _reverse(case: Case, lane: int) -> None:
    widths = case.program["states"]
    empty = [None] * len(widths)
    carry = [
        np.zeros(n) if g is None else g[lane].astype(float)
        for n, g in zip(widths, case.final_grads or empty, strict=True)
    ]
    for t in reversed(range(case.steps)):
        carry = [
            c if g is None else c + g[t, lane]
            for c, g in zip(carry, case.step_grads or empty, strict=True)
        ]
        if _is_over(case, t, lane):
            for x in _written(case):
                x[t, lane] = 0
            continue
        spaces = _spaces(case, t, lane)
        spaces["grad"] = carry
        spaces["grad_in"] = [np.full(n, np.nan) for n in widths]
        _step(case, spaces)
        carry = spaces["grad_in"]
        if case.clip is not None:
            carry = [np.clip(c, -case.clip, case.clip) for c in carry]
        if _is_reset(case, t, lane):
            for c, out in zip(carry, case.initial_grads or empty, strict=True):
                if out is not None:
                    out[lane] += c
            carry = [np.zeros(n) for n in widths]
    for c, out in zip(carry, case.start_grads or empty, strict=True):
        if out is not None:
            out[lane] = c


def _step(case: Case, spaces: dict[str, list[np.ndarray]]) -> None:
    def view(slot: Any) -> Any:
        if isinstance(slot, float):
            return np.array([slot])
        space, index, offset, width = slot
        return spaces[space][index][offset : offset + width]

    for name, dst, *operands in case.program.get("instructions", ()):
        if name == "matmul":
            init, a, m = operands
            result = view(a).astype(float) @ case.matrices[m].astype(float)
            result = result if init is None else result + view(init)
        elif name in REDUCTION:
            result = REDUCTION[name](*(view(x).astype(float) for x in operands))
        else:
            table = {**UNARY, **BINARY, **TERNARY}
            result = table[name](*(view(x).astype(float) for x in operands))
        view(dst)[...] = result
