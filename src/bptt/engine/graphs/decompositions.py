"""The operators that all others are taken apart into.

Layer normalisation is taken apart here: few operators on whole rows, and what is one number a row
is worked out first. After Ba, Kiros and Hinton, "Layer Normalization" (2016), equations 3 and 4.
With x^ the normalised row, r the reciprocal deviation, n the width and g the gradient of x^, the
gradient of the row is r g - (r / n) sum(g) - (r / n) sum(g x^) x^.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

_aten = torch.ops.aten


def _axes(input: Tensor, shape: Sequence[int]) -> list[int]:
    return list(range(input.dim() - len(shape), input.dim()))


def layer_norm(
    input: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten.native_layer_norm``: the result, the mean, and the reciprocal deviation."""
    axes, each = _axes(input, shape), 1.0 / prod(shape)
    mean = input.sum(axes, keepdim=True) * each
    centred = input - mean
    scale = torch.rsqrt((centred * centred).sum(axes, keepdim=True) * each + eps)
    result = centred * scale
    if weight is not None:
        result = result * weight
    if bias is not None:
        result = result + bias
    return result, mean, scale


def layer_norm_backward(
    gradient: Tensor,
    input: Tensor,
    shape: Sequence[int],
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """``aten.native_layer_norm_backward``: gradients of input, weight and bias, where wanted."""
    axes, over = _axes(input, shape), list(range(input.dim() - len(shape)))
    normal = (input - mean) * scale
    inner = gradient if weight is None else gradient * weight
    share = scale * (-1.0 / prod(shape))
    apart = (inner * normal).sum(axes, keepdim=True) * share
    shift = inner.sum(axes, keepdim=True) * share
    of_input = inner * scale + (normal * apart + shift) if wanted[0] else None
    of_weight = (gradient * normal).sum(over) if wanted[1] and weight is not None else None
    of_bias = gradient.sum(over) if wanted[2] and bias is not None else None
    return of_input, of_weight, of_bias


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Everything down to what `bptt.engine.lowering.operators` reads."""
    table = dict(core_aten_decompositions())
    more = [
        _aten._softmax,
        _aten._log_softmax,
        _aten.gelu,
        _aten.silu,
        _aten.elu,
        _aten.leaky_relu,
        _aten.hardtanh,
        _aten.hardsigmoid,
        _aten.hardswish,
        _aten.softplus_backward,
        _aten.mish,
        _aten.log_sigmoid_forward,
        _aten.glu,
        _aten.lerp,
        _aten.addcmul,
        _aten.addcdiv,
        _aten.rsub,
        _aten.masked_fill,
        _aten.threshold_backward,
        _aten.std,
        _aten.logaddexp,
        _aten.logit,
        _aten.celu,
        _aten.selu,
        _aten.rad2deg,
    ]
    table.update(get_decompositions(more))
    table[_aten.native_layer_norm.default] = layer_norm
    table[_aten.native_layer_norm_backward.default] = layer_norm_backward
    kept_whole: tuple[Any, ...] = (
        _aten.tanh_backward,
        _aten.sigmoid_backward,
        _aten.softplus,
        _aten.addmm,
        _aten.slice_scatter,
        _aten.select_scatter,
    )
    for kept in kept_whole:
        for name in kept.overloads():
            table.pop(getattr(kept, name), None)
    return table
