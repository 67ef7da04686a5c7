"""Trust, but verify: a program that gives other numbers than the Python loop is not used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.core.test_side_by_side import swept
from torch import Tensor, nn

import bptt
from bptt.engine.runtime import batched_segments, loop, native, verify
from bptt.engine.runtime.compile_cache import Plan, plan_for

pytestmark = pytest.mark.usefixtures("lenient")

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


def _raising(call: Any, primals: Any) -> Any:
    raise ZeroDivisionError("spoiled")


def _off(call: Any, primals: Any) -> Any:
    results, kept = loop.forward_loop(call, primals)
    return [result * 1.01 for result in results], kept


@pytest.mark.parametrize("spoiled", [_raising, _off])
def test_wrong_segments_side_by_side_are_not_used(
    spoiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = bptt.Network(Own(), nn.Linear(4, 1, dtype=F64), backend="auto")
    stream = bptt.Stream([torch.randn(30, 3, dtype=F64)], [torch.randn(30, 1, dtype=F64)], lanes=1)
    expected = swept(network, stream, 4, 9, 1)[1]
    monkeypatch.setattr(batched_segments, "forward_loop", spoiled)
    with pytest.warns(UserWarning, match="deserves a report"):
        found = swept(network, stream, 4, 9, 3)[1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_a_number_stands_where_it_is_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that gives numbers where the Python loop gives none is wrong."""
    run = native.run
    monkeypatch.setattr(
        native, "run", lambda *given, **options: tuple(map(_finite, run(*given, **options)))
    )
    cell, inputs = Own(), torch.randn(6, 3, 3, dtype=F64)
    inputs[1, 1, 0] = torch.nan
    with torch.no_grad(), pytest.warns(UserWarning, match="deserves a report"):
        bptt.unfold(cell, inputs)


def _finite(result: Any) -> Any:
    return torch.nan_to_num(result) if isinstance(result, Tensor) else result


def test_nothing_is_seen_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, inputs = Own(), torch.randn(6, 3, 3, dtype=F64)
    before = torch.get_rng_state()
    bptt.unfold(cell, inputs, backend="native")
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in cell.parameters())


def test_what_another_thread_draws_meanwhile_is_not_drawn_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell, inputs, drawn = Own(), torch.randn(6, 3, 3, dtype=F64), []
    run = native.run

    def beside(*given: Any, **options: Any) -> Any:
        thread = threading.Thread(target=lambda: drawn.append(float(torch.rand(()))))
        thread.start()
        thread.join()
        return run(*given, **options)

    with torch.no_grad():
        plan = plan_for(cell, inputs, cell.initial_state(3), cell.initial_state(3))
        assert isinstance(plan, Plan)
        monkeypatch.setattr(native, "run", beside)
        assert verify.differs(cell, plan, inputs, cell.initial_state(3)) is None
    assert len({*drawn, float(torch.rand(()))}) == len(drawn) + 1
