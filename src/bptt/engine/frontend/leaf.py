"""What a state's leaf is like for a step that is captured, and tensors that stand in for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bptt.engine import _torch_compat as compat
from bptt.engine.unsupported import Reason, Refusal
from bptt.state import State, head, leaves, nested, select


@dataclass(frozen=True)
class Leaf:
    """What a state's leaf is like, as far as a step can tell.

    ``rows`` is None where there is one a lane; ``stride`` for a leaf that lies dense in the
    ``order`` of its dimensions, innermost first. For so many ``lanes`` it has the strides
    ``exactly``, those of dimensions of which there is one included: a step may ask for them.
    """

    rows: int | None
    needs_gradient: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    order: tuple[int, ...]
    lanes: int
    exactly: tuple[int, ...]

    @staticmethod
    def of(value: Any, lanes: int) -> Leaf:
        """Of a tensor, whose sizes may be symbolic; ``lanes`` are those of the capture.

        Raises:
            Refusal: it is none, or its strides follow no rule.
        """
        if not isinstance(value, Tensor):
            raise Refusal(Reason.UNTRACEABLE, "a step that returns something other than tensors")
        sizes = tuple(map(compat.hint_of, value.shape))
        strides = tuple(map(compat.hint_of, value.stride()))
        order = tuple(sorted(range(len(sizes)), key=lambda d: (strides[d], -d)))
        if strides_of(sizes, order) == _counting(sizes, strides):
            stride = None
        elif all(isinstance(n, int) for n in value.stride()):
            stride = strides
        else:
            raise Refusal(Reason.UNTRACEABLE, "a state with strides that depend on the lanes")
        rows = None if not sizes or sizes[0] == lanes else sizes[0]
        return Leaf(
            rows, value.requires_grad, value.dtype, sizes[1:], stride, order, lanes, strides
        )

    def made(self, lanes: int) -> Tensor:
        """Such a tensor; if it needs a gradient, one that was computed."""
        shape = (lanes, *self.shape)
        stride = self.stride or strides_of(shape, self.order)
        if lanes == self.lanes:
            stride = self.exactly
        return stand_in(shape, stride, self.dtype, self.needs_gradient)

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor is like this."""
        shape = (tensor.shape[0], *self.shape)
        if tuple(tensor.shape) != shape or tensor.dtype is not self.dtype:
            return False
        if tensor.requires_grad is not self.needs_gradient:
            return False
        if tensor.requires_grad and tensor.is_leaf:
            return False
        if len(tensor) == self.lanes:
            return tensor.stride() == self.exactly
        own = self.stride or strides_of(shape, self.order)
        return _counting(shape, own) == _counting(shape, tensor.stride())


def strides_of(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """The strides of a dense tensor; what counts nothing has 0."""
    found, step = [0] * len(shape), 1
    for dim in order:
        if shape[dim] != 1:
            found[dim] = step
        step *= shape[dim]
    return tuple(found)


def _counting(shape: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """Strides, 0 for dimensions of which there is one."""
    return tuple(0 if n == 1 else s for n, s in zip(shape, stride, strict=True))


def step_needs_gradient(inputs: Tensor) -> bool:
    """Whether one step of inputs, which is a view of them, says that it needs a gradient: without
    grad mode, too, but not if the inputs were made in inference mode."""
    return inputs.requires_grad and not inputs.is_inference()


def stand_in(
    shape: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype,
    needs_gradient: bool,
    leaf: bool = False,
) -> Tensor:
    """A tensor that nobody else knows, like another one to all that a step may ask but its
    values; unless it is a ``leaf``, one that needs a gradient was computed."""
    with torch.inference_mode(False), torch.enable_grad():
        made = torch.empty_strided(tuple(shape), tuple(stride), dtype=dtype, device="cpu")
        if needs_gradient and leaf:
            made.requires_grad_()
        elif needs_gradient and made.is_contiguous():
            made = made.requires_grad_().clone()
        elif needs_gradient:
            size = made.untyped_storage().nbytes() // dtype.itemsize
            held = torch.empty(size, dtype=dtype, device="cpu")
            made = held.requires_grad_().clone().as_strided(made.shape, made.stride())
        return compat.with_any_number_of_lanes(made)


def of_leaves(make: Callable[[Leaf], Tensor], told: Any) -> Any:
    """A state like the one that a step returned."""
    if isinstance(told, Leaf):
        return make(told)
    return nested([of_leaves(make, part) for part in told], told)


def as_given(leaf: Tensor, lanes: int) -> Tensor:
    """Like a leaf of the state that a call starts from."""
    shape = (lanes, *leaf.shape[1:])
    return stand_in(shape, leaf.stride(), leaf.dtype, leaf.requires_grad, leaf.is_leaf)


def two_lanes(row: Tensor) -> Tensor:
    """Like a stand-in of one lane that lies dense, but with two."""
    shape = (2, *row.shape[1:])
    stride = torch.empty(shape, device="meta").stride()
    return stand_in(shape, stride, row.dtype, row.requires_grad, row.is_leaf)


def reset_kind(state: State, initial: State) -> Any:
    """What a step may see after a reset of the state that it returned to; None if it is plain."""
    grad = torch.is_grad_enabled()
    given = leaves(initial)
    others = [] if initial is state else [leaf for leaf in given if grad and leaf.requires_grad]
    if not others and all(leaf.is_contiguous() for leaf in given):
        return None
    return tuple((leaf.stride(), leaf.requires_grad) for leaf in given)


def as_reset(leaf: Tensor, initial: Tensor) -> Tensor:
    """Like a leaf of a state of which a reset made rows those of ``initial``."""
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.empty_strided(leaf.shape, initial.stride(), dtype=leaf.dtype)
        mask = torch.empty(len(leaf), dtype=torch.bool)
        stride = head(select(mask, rows, torch.empty_strided(leaf.shape, leaf.stride()))).stride()
    needs = torch.is_grad_enabled() and (leaf.requires_grad or initial.requires_grad)
    return stand_in(tuple(leaf.shape), stride, leaf.dtype, needs, not needs)


def seen_alike(one: Tensor, other: Tensor) -> bool:
    """Whether a step sees no difference between two stand-ins of one leaf."""
    return (
        one.stride() == other.stride()
        and one.requires_grad is other.requires_grad
        and one.is_leaf is other.is_leaf
    )


def alike(told: Any, entering: Any) -> bool:
    """Whether a state as the step returned it is like the one that entered."""
    if isinstance(told, Leaf):
        return isinstance(entering, Tensor) and told.fits(entering)
    same = type(told) is type(entering) and len(told) == len(entering)
    return same and all(map(alike, told, entering))
