"""Trust, but verify: a program that gives other numbers than the Python loop is not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine import loop, native

F64 = torch.float64


class Own(nn.Module):
    """A cell of two leaves that is not built in."""

    hidden_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.u, self.w = nn.Linear(3, 4, dtype=F64), nn.Linear(4, 4, dtype=F64)
        self.v = nn.Linear(4, 4, dtype=F64)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return torch.zeros(batch, 4, dtype=F64), torch.zeros(batch, 4, dtype=F64)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step."""
        low = torch.tanh(self.u(input) + self.w(state[0]))
        return low, torch.tanh(self.v(low) + state[1])

    def output(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """The upper leaf."""
        return state[1]


def gradients(cell: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(run().sin().sum(), list(cell.parameters())))


def spoiled_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = native.run

    def other(*given: Any, **options: Any) -> Any:
        outputs, *rest = run(*given, **options)
        return (outputs * 1.01, *rest)

    monkeypatch.setattr(native, "run", other)


def spoiled_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the inputs' and weights' alone: the outputs are right."""
    run = native.run

    def other(*given: Any, **options: Any) -> Any:
        outputs, *rest = run(*given, **options)
        return (outputs + 0.01 * (outputs - outputs.detach()), *rest)

    monkeypatch.setattr(native, "run", other)


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*given: Any, **options: Any) -> Any:
        raise ZeroDivisionError("spoiled")

    monkeypatch.setattr(native, "run", other)


@pytest.mark.parametrize("spoil", [spoiled_outputs, spoiled_gradients, failing])
def test_a_wrong_program_is_not_used(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, inputs = Own(), torch.randn(6, 3, 3, dtype=F64)
    expected = gradients(cell, lambda: bptt.unfold(cell, inputs, backend="eager")[0])
    spoil(monkeypatch)
    with pytest.warns(UserWarning, match="deserves a report"):
        found = gradients(cell, lambda: bptt.unfold(cell, inputs)[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(bptt.errors.CellError, match="deserves a report"):
        bptt.unfold(cell, inputs, backend="native")


def test_wrong_segments_side_by_side_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = loop._gathered

    def absolute(call: Any, place: Any, arrays: Any, states: Any, times: Any) -> Tensor:
        space, index, offset, width, _ = place
        if space != "state" or call.reset is not None:
            return right(call, place, arrays, states, times)
        own, count = states[index], call.steps * call.batch
        return own.as_strided((count, width), (own.shape[2], 1), offset)

    cell, inputs = Own(), torch.randn(40, 1, 3, dtype=F64)
    expected = gradients(cell, lambda: bptt.unfold(cell, inputs, backend="eager")[0])
    monkeypatch.setattr(loop, "_gathered", absolute)
    run = lambda: bptt.checkpointed_unfold(cell, inputs, segment=10)[0]  # noqa: E731
    found = gradients(cell, run)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_seen_of_it() -> None:
    cell, inputs = Own(), torch.randn(6, 3, 3, dtype=F64)
    before = torch.get_rng_state()
    bptt.unfold(cell, inputs, backend="native")
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in cell.parameters())
