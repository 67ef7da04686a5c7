"""Local rules: constants are folded, and neutral elements vanish.

In the backward step a zero is a structural one (a gradient that is not there): its product is zero
whatever the other factor holds. In the step itself it may be the user's, and what it is multiplied
with may not be finite.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from bptt.engine.ir.ops import OPERATORS
from bptt.engine.ir.program import Operand

LEAST = 2.0**-126
"""The least number of float32 with all its digits."""

Simple = Operand | float | tuple[Any, ...] | None


def simplify(opcode: str, arguments: tuple[Operand | float, ...], backward: bool = False) -> Simple:
    """What an instruction, of the backward step or of the step, comes to without running it: an
    argument, a constant, another instruction ``(opcode, *arguments)``, or None."""
    if all(isinstance(a, float) for a in arguments):
        return _folded(opcode, arguments)  # type: ignore[arg-type]  # numbers alone reach this line
    if opcode in ("mul", "div") and 0.0 in arguments[: 1 + (opcode == "mul")]:
        return 0.0 if backward else None
    rule = _RULES.get(opcode)
    return rule(*arguments) if rule is not None else None  # type: ignore[operator]  # each rule has its opcode's own number of arguments


def _folded(opcode: str, arguments: tuple[float, ...]) -> float:
    meaning = OPERATORS[opcode].meaning
    assert meaning is not None
    return float(meaning(*[torch.tensor(a, dtype=torch.float64) for a in arguments]))


def _add(a: Operand | float, b: Operand | float) -> Simple:
    return b if a == 0.0 else a if b == 0.0 else None


def _sub(a: Operand | float, b: Operand | float) -> Simple:
    return a if b == 0.0 else ("neg", b) if a == 0.0 else None


def _mul(a: Operand | float, b: Operand | float) -> Simple:
    if a == 1.0 or b == 1.0:
        return b if a == 1.0 else a
    return ("neg", b) if a == -1.0 else ("neg", a) if b == -1.0 else None


def _div(a: Operand | float, b: Operand | float) -> Simple:
    if b == 1.0:
        return a
    # By a power of two, whose reciprocal is exact in float32, too.
    if isinstance(b, float) and LEAST <= abs(b) <= 1 / LEAST and abs(math.frexp(b)[0]) == 0.5:
        return ("mul", a, 1.0 / b)
    return ("reciprocal", b) if a == 1.0 else None


def _where(condition: Operand | float, a: Operand | float, b: Operand | float) -> Simple:
    if isinstance(condition, float):
        return a if condition else b
    return a if a == b else None


def _gradient(g: Operand | float, y: Operand | float) -> Simple:
    return 0.0 if g == 0.0 else None


def _pow(a: Operand | float, b: Operand | float) -> Simple:
    if not isinstance(b, float):
        return None
    known: dict[float, Simple] = {
        0.0: 1.0,
        1.0: a,
        2.0: ("mul", a, a),
        0.5: ("sqrt", a),
        -0.5: ("rsqrt", a),
        -1.0: ("reciprocal", a),
    }
    return known.get(b)


def _copy(a: Operand | float) -> Simple:
    return a


_RULES = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "where": _where,
    "copy": _copy,
    "tanh_backward": _gradient,
    "sigmoid_backward": _gradient,
}
