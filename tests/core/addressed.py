"""Streams whose inputs and targets carry their own address, ``1000 · sequence + step``, so that a
step can be recognised wherever it went."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import bptt

from .helpers import F64

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SEEDS = st.none() | st.integers(0, 3)


def addresses(length: int, sequence: int = 0) -> Tensor:
    return 1000.0 * sequence + torch.arange(length, dtype=F64)


def address_stream(lengths: list[int], **options: Any) -> bptt.Stream:
    values = [addresses(n, j) for j, n in enumerate(lengths)]
    return bptt.Stream(values, values, **options)


def active(batch: Any) -> Tensor:
    """Which steps are data, [time, lane]: what follows a lane's end is padding."""
    if batch.lengths is None:
        return torch.ones_like(batch.mask)
    return torch.arange(batch.length)[:, None] < batch.lengths


def lanes_of(batch: Any) -> list[list[int]]:
    return [batch.inputs[active(batch)[:, j], j, 0].int().tolist() for j in range(batch.lanes)]


def counted_of(batches: list[Any]) -> list[tuple[int, int]]:
    """The (input, target) addresses that count, sorted."""
    pairs = []
    for batch in batches:
        inputs, targets = batch.inputs[batch.mask][:, 0], batch.targets[batch.mask][:, 0]
        pairs += list(zip(inputs.int().tolist(), targets.int().tolist(), strict=True))
    return sorted(pairs)


def every(lengths: list[int]) -> list[int]:
    return [1000 * j + t for j, n in enumerate(lengths) for t in range(n)]
