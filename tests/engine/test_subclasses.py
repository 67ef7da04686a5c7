"""Subclasses of cells and readouts whose code is known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.frontend.builtin import is_built_in
from bptt.training._eligible import learner_of

from .contact import SIZE, agree, given

pytestmark = pytest.mark.usefixtures("core", "double")


class Small(nn.GRUCell):
    """Draws its weights in its own way."""

    def __init__(self) -> None:
        super().__init__(SIZE, SIZE)
        self.note = "mine"

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.1, 0.1)


class Smaller(Small):
    """Two classes away."""


class Halved(nn.GRUCell):
    """Another step."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return super().forward(input, hx) / 2


class Called(nn.GRUCell):
    """The same `forward`, but not all that a call does."""

    def __call__(self, *arguments: Any) -> Tensor:
        result: Tensor = super().__call__(*arguments)
        return result / 2


class Asked(nn.GRUCell):
    """Attributes of its own making."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return found * 2 if name == "weight_hh" else found


class Behind(nn.Module):
    """Comes after the known class, before `nn.Module`."""

    def __call__(self, *arguments: Any) -> Tensor:
        result: Tensor = super().__call__(*arguments)
        return result / 2


class Before(nn.GRUCell, Behind):
    """With another's call."""


class Locked(nn.GRUCell):
    """Something that cannot be copied."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.lock = threading.Lock()


class Mixin:
    """Comes before the known class."""

    def forward(self, input: Tensor, hx: Tensor) -> Tensor:
        return torch.tanh(input + hx)


class Mixed(Mixin, nn.GRUCell):
    """With another's step."""


@pytest.mark.parametrize("kind", [Small, Smaller])
def test_what_changes_no_step_is_known(kind: Callable[[], nn.Module]) -> None:
    cell = kind()
    assert is_built_in(cell)
    agree(cell, given())


@pytest.mark.parametrize("kind", [Halved, Called, Asked, Mixed, Before])
def test_what_may_change_a_step_is_captured(kind: type[nn.GRUCell]) -> None:
    cell = kind(SIZE, SIZE)
    assert not is_built_in(cell)
    agree(cell, given())


def test_what_no_step_reads_may_be_what_nobody_can_copy() -> None:
    cell = Locked(SIZE, SIZE)
    assert is_built_in(cell)
    agree(cell, given())


def test_a_forward_that_comes_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Small()
    agree(cell, given())
    step = nn.GRUCell.forward
    monkeypatch.setattr(Small, "forward", lambda s, i, h: step(s, i, h) / 2, raising=False)
    assert not is_built_in(cell)
    inputs = given().detach()
    found, _ = bptt.unfold(cell, inputs)
    torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])


def test_a_readout_that_only_starts_otherwise_trains_in_the_core() -> None:
    class Zero(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    network = bptt.Network(bptt.cells.GRU(2, 3), Zero(3, 1))
    chunk = next(iter(bptt.Stream(torch.randn(9, 2), torch.randn(9, 1)).batches())).chunk(0, 9)
    learner = learner_of(network, bptt.Truncated(4, 4), "mse", chunk, 9)
    assert not isinstance(learner, str), learner
