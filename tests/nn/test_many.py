"""Layers of many sizes in one process."""

from __future__ import annotations

import gc
import weakref
from functools import lru_cache
from typing import Any

import pytest
import torch

import bptt
from bptt.nn import _dispatch, _kinds, _unfolded


def test_what_stands_for_a_size_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = _kinds.cell_of.__wrapped__, []

    @lru_cache(maxsize=3)
    def cell_of(standing: Any) -> Any:
        cell = make(standing)
        made.append(weakref.ref(cell))
        return cell

    for module in (_kinds, _unfolded, _dispatch):
        monkeypatch.setattr(module, "cell_of", cell_of)
    for size in range(1, 8):
        layer, inputs = bptt.nn.RNN(1, size), torch.zeros(2, 1, 1)
        layer(inputs)
        layer(inputs)  # the usual call
    gc.collect()
    assert len(made) == 7
    assert [reference() is None for reference in made] == [True] * 4 + [False] * 3
