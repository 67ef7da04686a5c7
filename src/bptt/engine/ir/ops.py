"""The operators of step programs: what each means, and all else that is known of it.

A fact about an operator stands here once. Passes, the interpreter and the verifier ask for it by
the opcode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Kind(Enum):
    """How an operator treats the columns of a row."""

    POINTWISE = "each column alone; an argument of one column is repeated"
    REDUCTION = "all columns to one"
    PRODUCT = "a row times a matrix"
    LAYOUT = "columns side by side"


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        opcode: its name in a program.
        arity: how many arguments it has; those of a layout are its pieces.
        meaning: what it gives, in PyTorch, of rows [lanes, width]; None where the interpreter needs
            more than its arguments.
        kind: how it treats columns.
        cheap: whether the backward step rather repeats it than reads its result from memory.
        commutative: whether its two arguments may change places.
    """

    opcode: str
    arity: int
    meaning: Callable[..., Tensor] | None
    kind: Kind = Kind.POINTWISE
    cheap: bool = False
    commutative: bool = False


def _truth(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A comparison gives 0 or 1 in the dtype of its arguments."""

    def as_number(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b).to(torch.result_type(a, b))

    return as_number


def _both(a: Tensor, b: Tensor) -> Tensor:
    return ((a != 0) & (b != 0)).to(a.dtype)


def _either(a: Tensor, b: Tensor) -> Tensor:
    return ((a != 0) | (b != 0)).to(a.dtype)


def _sum(a: Tensor) -> Tensor:
    return a.sum(dim=1, keepdim=True)


_CHEAP: dict[str, Any] = {"cheap": True}
_SYMMETRIC: dict[str, Any] = {"cheap": True, "commutative": True}
_REDUCTION: dict[str, Any] = {"kind": Kind.REDUCTION}

_ALL = [
    Operator("copy", 1, lambda a: a, **_CHEAP),
    Operator("neg", 1, torch.neg, **_CHEAP),
    Operator("abs", 1, torch.abs, **_CHEAP),
    Operator("sign", 1, torch.sgn, **_CHEAP),
    Operator("reciprocal", 1, torch.reciprocal, **_CHEAP),
    Operator("relu", 1, torch.relu, **_CHEAP),
    Operator("not", 1, lambda a: (a == 0).to(a.dtype), **_CHEAP),
    Operator("sqrt", 1, torch.sqrt),
    Operator("rsqrt", 1, torch.rsqrt),
    Operator("exp", 1, torch.exp),
    Operator("expm1", 1, torch.expm1),
    Operator("log", 1, torch.log),
    Operator("log1p", 1, torch.log1p),
    Operator("tanh", 1, torch.tanh),
    Operator("sigmoid", 1, torch.sigmoid),
    Operator("softplus", 1, functional.softplus),
    Operator("erf", 1, torch.erf),
    Operator("add", 2, torch.add, **_SYMMETRIC),
    Operator("sub", 2, torch.sub, **_CHEAP),
    Operator("mul", 2, torch.mul, **_SYMMETRIC),
    Operator("div", 2, torch.div),
    Operator("minimum", 2, torch.minimum, **_SYMMETRIC),
    Operator("maximum", 2, torch.maximum, **_SYMMETRIC),
    Operator("pow", 2, torch.pow),
    Operator("gt", 2, _truth(torch.gt), **_CHEAP),
    Operator("ge", 2, _truth(torch.ge), **_CHEAP),
    Operator("lt", 2, _truth(torch.lt), **_CHEAP),
    Operator("le", 2, _truth(torch.le), **_CHEAP),
    Operator("eq", 2, _truth(torch.eq), **_SYMMETRIC),
    Operator("ne", 2, _truth(torch.ne), **_SYMMETRIC),
    Operator("and", 2, _both, **_SYMMETRIC),
    Operator("or", 2, _either, **_SYMMETRIC),
    Operator("tanh_backward", 2, lambda g, y: g * (1 - y * y), **_CHEAP),
    Operator("sigmoid_backward", 2, lambda g, y: g * y * (1 - y), **_CHEAP),
    Operator("mul_add", 3, lambda a, b, c: a * b + c, **_CHEAP),
    Operator("where", 3, lambda c, a, b: torch.where(c != 0, a, b), **_CHEAP),
    Operator("sum", 1, _sum, **_REDUCTION),
    Operator("dot", 2, lambda a, b: _sum(a * b), **_REDUCTION),
    Operator("amax", 1, lambda a: a.amax(dim=1, keepdim=True), **_REDUCTION),
    Operator("matmul", 2, None, Kind.PRODUCT),
    Operator("pack", 0, None, Kind.LAYOUT, **_CHEAP),
]

OPERATORS = {operator.opcode: operator for operator in _ALL}
"""All operators by their opcodes."""


def is_pointwise(opcode: str) -> bool:
    """Whether an operator works element by element, on rows that broadcast."""
    return OPERATORS[opcode].kind is Kind.POINTWISE
