"""Layer normalisation in few operators on whole rows; what is one number a row is worked out first.

After Ba, Kiros and Hinton, "Layer Normalization" (2016), equations 3 and 4. With x^ the normalised
row, r the reciprocal deviation, n the width and g the gradient of x^, the gradient of the row is
r g - (r / n) sum(g) - (r / n) sum(g x^) x^.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


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
