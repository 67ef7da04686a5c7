"""Operators that only rearrange: on `Rows` they move integers, and no instruction comes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.engine.graphs.nodes import LANES
from bptt.engine.lowering.builder import Rows
from bptt.engine.lowering.translator import Translator, handles
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten


def _place(value: Tensor) -> int:
    """The dimension of a traced tensor that counts lanes: exactly one."""
    axes = [i for i, n in enumerate(value.shape) if n == LANES[0]]
    if len(axes) != 1:
        raise Refusal(Reason.LANES, "lanes")
    return axes[0]


def _one_lane(value: Tensor) -> list[int]:
    shape = list(value.shape)
    shape[_place(value)] = 1
    return shape


@handles(
    _aten.alias,
    _aten.clone,
    _aten.detach,
    _aten.lift_fresh_copy,
    _aten.contiguous,
    _aten.lift_fresh,
    _aten._conj,
    _aten.positive,
)
def same(tr: Translator, value: Tensor, x: Any, **options: Any) -> Any:
    """The tensor itself."""
    return x


@handles(_aten.view, _aten.reshape, _aten._unsafe_view, _aten._reshape_alias)
def view(tr: Translator, value: Tensor, x: Rows, *sizes: Any) -> Rows:
    """Features regrouped; the lanes stay apart from them."""
    axis, shape = _place(value), _one_lane(value)
    before, after = int(np.prod(x.columns.shape[: x.axis])), int(np.prod(shape[:axis]))
    if before != after or x.columns.size != int(np.prod(shape)):
        raise Refusal(Reason.LANES, "view")
    return Rows(x.columns.reshape(shape), axis)


@handles(_aten.expand)
def expand(tr: Translator, value: Tensor, x: Any, *sizes: Any, **options: Any) -> Rows:
    """Repeated columns."""
    rows = tr.as_rows(x)
    return Rows(np.broadcast_to(rows.columns, _one_lane(value)), _place(value))


@handles(_aten.permute)
def permute(tr: Translator, value: Tensor, x: Rows, dims: list[int]) -> Rows:
    """Dimensions in another order."""
    order = [d % x.rank for d in dims]
    return Rows(x.columns.transpose(order), order.index(x.axis))


@handles(_aten.transpose)
def transpose(tr: Translator, value: Tensor, x: Rows, a: int, b: int) -> Rows:
    """Two dimensions exchanged."""
    order = list(range(x.rank))
    a, b = a % x.rank, b % x.rank
    order[a], order[b] = order[b], order[a]
    return permute(tr, value, x, order)


@handles(_aten.t)
def t(tr: Translator, value: Tensor, x: Rows) -> Rows:
    """The transpose of two dimensions."""
    return permute(tr, value, x, list(range(x.rank))[::-1])


@handles(_aten.unsqueeze)
def unsqueeze(tr: Translator, value: Tensor, x: Rows, dim: int) -> Rows:
    """A new dimension of one."""
    return Rows(x.columns.reshape(_one_lane(value)), _place(value))


@handles(_aten.squeeze)
def squeeze(tr: Translator, value: Tensor, x: Rows, *dims: Any) -> Rows:
    """Dimensions of one dropped."""
    return Rows(x.columns.reshape(_one_lane(value)), _place(value))


def _feature_dim(x: Rows, dim: int, operator: str) -> int:
    dim = dim % x.rank
    if dim == x.axis:
        raise Refusal(Reason.LANES, operator)
    return dim


@handles(_aten.slice)
def slice_(
    tr: Translator,
    value: Tensor,
    x: Rows,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Rows:
    """Some of the features."""
    if dim % x.rank == x.axis:
        if tuple(value.shape) != tuple(
            LANES[0] if i == x.axis else n for i, n in enumerate(x.columns.shape)
        ):
            raise Refusal(Reason.LANES, "slice")
        return x
    index = [slice(None)] * x.rank
    index[dim % x.rank] = slice(start, end, step)
    return Rows(x.columns[tuple(index)], x.axis)


@handles(_aten.select)
def select(tr: Translator, value: Tensor, x: Rows, dim: int, index: int) -> Rows:
    """One of the features."""
    dim = _feature_dim(x, dim, "select")
    place: list[Any] = [slice(None)] * x.rank
    place[dim] = index
    return Rows(x.columns[tuple(place)], x.axis - (dim < x.axis))


@handles(_aten.unbind)
def unbind(tr: Translator, value: Any, x: Rows, dim: int = 0) -> list[Rows]:
    """All of them, one by one."""
    return [select(tr, v, x, dim, i) for i, v in enumerate(value)]


@handles(_aten.split, _aten.split_with_sizes, _aten.unsafe_split, _aten.unsafe_split_with_sizes)
def split(tr: Translator, value: Any, x: Rows, sizes: Any, dim: int = 0) -> list[Rows]:
    """Slices that follow each other."""
    dim = _feature_dim(x, dim, "split")
    ends = np.cumsum([v.shape[dim] for v in value])[:-1]
    return [Rows(part, x.axis) for part in np.split(x.columns, ends.tolist(), axis=dim)]


def _with_lanes(x: Any) -> Rows:
    """An argument of a concatenation, which must have a row a lane."""
    if isinstance(x, Rows) and x.axis >= 0:
        return x
    raise Refusal(Reason.LANES, "cat")


@handles(_aten.cat)
def cat(tr: Translator, value: Tensor, parts: list[Any], dim: int = 0) -> Rows:
    """Features side by side."""
    rows = [_with_lanes(part) for part in parts]
    axis, dim = _place(value), dim % value.dim()
    if dim == axis or any(r.axis != axis for r in rows):
        raise Refusal(Reason.LANES, "cat")
    return Rows(np.concatenate([r.columns for r in rows], axis=dim), axis)


@handles(_aten.stack)
def stack(tr: Translator, value: Tensor, parts: list[Any], dim: int = 0) -> Rows:
    """Features side by side, in a dimension of their own."""
    rows = [_with_lanes(part) for part in parts]
    return Rows(np.stack([r.columns for r in rows], axis=dim), _place(value))


@handles(_aten.flip)
def flip(tr: Translator, value: Tensor, x: Rows, dims: list[int]) -> Rows:
    """Features in reverse."""
    return Rows(np.flip(x.columns, tuple(_feature_dim(x, d, "flip") for d in dims)), x.axis)


@handles(_aten.slice_scatter)
def slice_scatter(
    tr: Translator,
    value: Tensor,
    x: Any,
    part: Any,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Rows:
    """A tensor with some of its features replaced."""
    base, dim = _full(tr, x, value), dim % value.dim()
    if dim == base.axis:
        if tuple(part.columns.shape) == tuple(base.columns.shape):
            return tr.as_rows(part)
        raise Refusal(Reason.LANES, "slice_scatter")
    index = [slice(None)] * base.rank
    index[dim] = slice(start, end, step)
    columns = base.columns.copy()
    columns[tuple(index)] = tr.as_rows(part).columns
    return Rows(columns, base.axis)


@handles(_aten.select_scatter)
def select_scatter(tr: Translator, value: Tensor, x: Any, part: Any, dim: int, index: int) -> Rows:
    """A tensor with one of its features replaced."""
    base = _full(tr, x, value)
    place: list[Any] = [slice(None)] * base.rank
    place[_feature_dim(base, dim, "select_scatter")] = index
    columns = base.columns.copy()
    columns[tuple(place)] = tr.as_rows(part).columns
    return Rows(columns, base.axis)


@handles(_aten.constant_pad_nd)
def pad(tr: Translator, value: Tensor, x: Rows, amounts: list[int], fill: float = 0.0) -> Rows:
    """Constants beside the features; fewer features where an amount is negative."""
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    widths = [(0, 0)] * (x.rank - len(pairs)) + pairs
    if widths[x.axis] != (0, 0):
        raise Refusal(Reason.LANES, "constant_pad_nd")
    constant = int(tr.builder.columns_of(float(fill))[0])
    more = [(max(a, 0), max(b, 0)) for a, b in widths]
    less = tuple(slice(max(-a, 0), -max(-b, 0) or None) for a, b in widths)
    return Rows(np.pad(x.columns[less], more, constant_values=constant), x.axis)


@handles(_aten.full, _aten.full_like, _aten.new_full)
def full(tr: Translator, value: Tensor, *arguments: Any, **options: Any) -> Any:
    """A constant of any shape."""
    return _filled(tr, value, float(arguments[-1]))


@handles(
    _aten.zeros,
    _aten.zeros_like,
    _aten.new_zeros,
    _aten.empty_permuted,
    _aten.empty_like,
    _aten.new_empty,
    _aten.empty,
    _aten.empty_strided,
    _aten.new_empty_strided,
)
def zeros(tr: Translator, value: Tensor, *arguments: Any, **options: Any) -> Any:
    """Zeros of any shape (and what is only there for its shape)."""
    return _filled(tr, value, 0.0)


@handles(_aten.ones, _aten.ones_like, _aten.new_ones)
def ones(tr: Translator, value: Tensor, *arguments: Any, **options: Any) -> Any:
    """Ones of any shape."""
    return _filled(tr, value, 1.0)


@handles(_aten.scalar_tensor)
def scalar_tensor(tr: Translator, value: Tensor, number: float, **options: Any) -> float:
    """A number."""
    return float(number)


def _filled(tr: Translator, value: Tensor, number: float) -> Any:
    if value.dim() == 0:
        return number
    return Rows(np.broadcast_to(tr.builder.columns_of(number), _one_lane(value)), _place(value))


def _full(tr: Translator, x: Any, value: Tensor) -> Rows:
    rows = tr.as_rows(x)
    return (
        rows
        if rows.axis >= 0
        else Rows(np.broadcast_to(rows.columns, _one_lane(value)), _place(value))
    )
