"""Random programs: the core against the plain interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from bptt import _core

from .driver import VARIANTS, assert_close, assert_same, expected, outputs, run, spaced
from .oracle import Case
from .programs import cases

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def _nudged(case: Case) -> Case:
    """The case with inputs moved by about one rounding error."""
    moved = Case(**vars(case))
    g = np.random.default_rng(0)
    for name in ("states", "time", "rows", "units", "matrices", "initial", "step_grads"):
        moved.__dict__[name] = [
            x * (1 + 1e-13 * g.normal(size=x.shape)) for x in getattr(case, name)
        ]
    return moved


def _well_posed(case: Case, want: Case) -> bool:
    """False where a rounding error moves the result: at a comparison of equals, near a pole."""
    other = outputs(expected(_nudged(case)))
    return all(np.allclose(other[k], x, rtol=1e-8, atol=1e-8) for k, x in outputs(want).items())


@quick
@given(case=cases())
def test_matches_the_interpreter(case: Case) -> None:
    want = expected(case)
    assume(_well_posed(case, want))
    for isa in VARIANTS:
        _core.use_isa(isa)
        assert_close(run(case), want, 1e-6)
    _core.use_isa(None)


@quick
@given(case=cases("float32"))
def test_strides_and_threads_change_nothing(case: Case) -> None:
    once = run(case)
    assert_same(run(case, wrap=spaced), once)
    assert_same(run(case, threads=3), once)


@pytest.mark.usefixtures("isa")
@settings(quick, max_examples=50)
@given(case=cases("float32"))
def test_a_row_does_not_depend_on_its_neighbours(case: Case) -> None:
    assume(case.batch > 1)
    together = run(case)
    last = run(_lane(case, case.batch - 1))
    assert_same(last, _lane(together, case.batch - 1))


def _lane(case: Case, lane: int) -> Case:
    """One lane of a case, alone."""
    part = Case(**{**vars(case), "batch": 1})
    for name in ("states", "time", "step_grads"):
        part.__dict__[name] = [x[:, lane : lane + 1].copy() for x in getattr(case, name)]
    for name in ("rows", "initial", "final_grads", "start_grads", "initial_grads"):
        part.__dict__[name] = [x[lane : lane + 1].copy() for x in getattr(case, name)]
    part.reset = None if case.reset is None else case.reset[:, lane : lane + 1].copy()
    part.lengths = None if case.lengths is None else case.lengths[lane : lane + 1].copy()
    return part
