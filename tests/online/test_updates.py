"""Updates in the core are those of PyTorch: one by one from the same place, and many in a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.online.draws import PLAINEST, ByRows, Run, Trained, assert_same, runs, tensors_of
from torch import Tensor, nn

import bptt
from bptt.errors import BpttError

pytest.importorskip("bptt._core")


drawn = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@drawn
@given(runs(), st.integers(0, 4), st.integers(1, 3))
def test_one_update_from_the_same_place(run: Run, before: int, at_once: int) -> None:
    assert_one_update(run, before, at_once)


@drawn
@given(runs(PLAINEST, (4, 8, 16, 32)), st.integers(0, 4), st.integers(1, 3))
def test_one_update_of_the_plainest_cells(run: Run, before: int, at_once: int) -> None:
    assert_one_update(run, before, at_once)


def assert_one_update(run: Run, before: int, at_once: int) -> None:
    """After so many updates through PyTorch, one there and one in the core are the same."""
    eager, native = Trained(run.copy()), Trained(run.copy())
    try:
        eager.eager(before)
    except BpttError:
        assume(False)
    assume(len(eager.losses) == before)
    if before:
        native.take_over(eager)
        eager.method.load_state_dict(eager.method.state_dict())
    eager.losses, eager.norms = [], []
    expected, found = eager.eager(1), native.native(1, at_once)
    assert (expected is None) == (found is None)
    if expected is None or found is None:
        return
    assert found.loss == pytest.approx(expected.loss, rel=1e-10, abs=1e-14)
    assert native.norms == pytest.approx(eager.norms, rel=1e-10, abs=1e-14)
    assert (found.count, found.start, found.stop, found.batch) == (
        expected.count,
        expected.start,
        expected.stop,
        expected.batch,
    )
    assert_same(tensors_of(eager), tensors_of(native), 1e-10)


class Added(ByRows):
    """A product to which something narrower is added."""

    def __init__(self, what: str) -> None:
        super().__init__(3, 8)
        self.what = what
        self.one = nn.Parameter(torch.randn(1))
        self.column = nn.Parameter(torch.randn(3, 1))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        added: dict[str, Tensor | float] = {
            "number": 1.0,
            "parameter": self.one,
            "input": torch.sigmoid(input @ self.column),
            "state": state[:, :1] * self.one,
        }
        return torch.tanh(state @ self.onward + added[self.what] + input @ self.inward)


@pytest.mark.parametrize("what", ["number", "parameter", "input", "state"])
def test_something_narrower_is_added_to_a_product(what: str) -> None:
    torch.manual_seed(0)
    series, target = torch.randn(30, 3).double(), torch.randn(30, 2).double()
    run = Run(
        bptt.Network(Added(what), nn.Linear(8, 2)).double(),
        bptt.Truncated(4, 2),
        "mse",
        lambda parameters: torch.optim.SGD(parameters, 0.05),
        None,
        lambda: bptt.Stream(series, target),
    )
    eager, native = Trained(run.copy()), Trained(run)
    eager.eager(10)
    native.native(10, 10)
    assert native.losses == pytest.approx(eager.losses, rel=1e-10)
    parameters = (dict(t.network.state_dict()) for t in (eager, native))
    assert_same(*parameters, 1e-10)
