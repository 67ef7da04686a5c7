"""What the tests of layers share: pairs of layers, calls, and comparing all that comes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

import bptt.nn
from bptt.engine.runtime import native

needs_core = pytest.mark.skipif(
    bptt.nn._unfolded._CORE is False, reason="the compiled core is not built"
)


def pair(kind: str, *args: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """PyTorch's layer and ours, with equal weights."""
    theirs = getattr(nn, kind)(*args, **options)
    ours = getattr(bptt.nn, kind)(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a nested result; of packed sequences the data."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, (tuple, list)):
        return [t for part in value for t in tensors(part)]
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


def gradients(result: Any, wanted: list[Tensor]) -> list[Tensor]:
    """Of a loss that weighs every element of a result differently."""
    loss = torch.zeros((), dtype=torch.float64)
    for i, tensor in enumerate(tensors(result)):
        weights = torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype) + 0.3 * i
        loss = loss + (tensor * weights.view(tensor.shape)).sum() + (tensor**2).sum()
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def same(one: Any, other: Any, tolerance: float = 1e-10) -> None:
    """Equal tensors, however nested."""
    left, right = tensors(one), tensors(other)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def packed(input: Tensor, batch_first: bool, sort: bool = False) -> PackedSequence:
    """``input`` as a packed sequence of unequal lengths, in or out of order."""
    lanes, steps = (input.shape[0], input.shape[1]) if batch_first else input.shape[1::-1]
    lengths = [max(1, steps - (2 * i) % steps) for i in range(lanes)]
    lengths = sorted(lengths, reverse=True) if sort else lengths[::-1]
    return pack_padded_sequence(
        input, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=sort
    )


def unfolded_by_engine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cells that the native executor runs from now on."""
    seen: list[str] = []
    run = native.run

    def spy(cell: nn.Module, *args: Any, **options: Any) -> Any:
        seen.append(type(cell).__name__)
        return run(cell, *args, **options)

    monkeypatch.setattr(native, "run", spy)
    return seen
