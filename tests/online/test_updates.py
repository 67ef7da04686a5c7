"""Updates in the core are those of PyTorch: one by one from the same place, and many in a row."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.online.draws import PLAINEST, Run, Trained, assert_same, runs, tensors_of

from bptt.errors import BpttError

pytest.importorskip("bptt._core")


drawn = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
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
