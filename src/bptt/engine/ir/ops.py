"""What each pointwise opcode means, in PyTorch: for constants, and for the plain interpreter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def _truth(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A comparison gives 0 or 1 in the dtype of its arguments."""

    def as_number(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b).to(torch.result_type(a, b))

    return as_number


def _both(a: Tensor, b: Tensor) -> Tensor:
    return ((a != 0) & (b != 0)).to(a.dtype)


def _either(a: Tensor, b: Tensor) -> Tensor:
    return ((a != 0) | (b != 0)).to(a.dtype)


POINTWISE: dict[str, Callable[..., Tensor]] = {
    "copy": lambda a: a,
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sgn,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softplus": functional.softplus,
    "erf": torch.erf,
    "not": lambda a: (a == 0).to(a.dtype),
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "pow": torch.pow,
    "gt": _truth(torch.gt),
    "ge": _truth(torch.ge),
    "lt": _truth(torch.lt),
    "le": _truth(torch.le),
    "eq": _truth(torch.eq),
    "ne": _truth(torch.ne),
    "and": _both,
    "or": _either,
    "tanh_backward": lambda g, y: g * (1 - y * y),
    "sigmoid_backward": lambda g, y: g * y * (1 - y),
    "mul_add": lambda a, b, c: a * b + c,
    "where": lambda c, a, b: torch.where(c != 0, a, b),
}
"""Opcodes that work element by element, on tensors that broadcast."""

CHEAP = frozenset(
    [
        "copy",
        "neg",
        "abs",
        "sign",
        "reciprocal",
        "relu",
        "not",
        "add",
        "sub",
        "mul",
        "minimum",
        "maximum",
        "gt",
        "ge",
        "lt",
        "le",
        "eq",
        "ne",
        "and",
        "or",
        "tanh_backward",
        "sigmoid_backward",
        "mul_add",
        "where",
        "pack",
    ]
)
"""What the backward step rather repeats than reads from memory."""
