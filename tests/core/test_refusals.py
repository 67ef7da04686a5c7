"""Bad input is refused before any work: what was given, what was expected, and the mend."""

from __future__ import annotations

import pytest

import bptt
from bptt import BpttError, CellError, DataError, OptionError, ShapeError

from .helpers import assert_same, weights
from .refusals.case import Case
from .refusals.data import DATA
from .refusals.functions import FUNCTIONS
from .refusals.options import OPTIONS
from .refusals.unfolding import UNFOLDING

CASES = OPTIONS + DATA + UNFOLDING + FUNCTIONS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_before_any_work(case: Case) -> None:
    net = case.net()
    before = weights(net)
    with pytest.raises(BpttError, match=f"(?s){case.message}") as found:
        case.act(net)
    assert isinstance(found.value, case.error)
    assert len(str(found.value)) < 500
    assert_same(weights(net), before, 0.0)
    assert all(p.grad is None for p in net.parameters())


def test_the_table_is_long_enough_and_names_every_case_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_every_error_is_of_the_base_class_and_of_pythons_own_kind() -> None:
    for error, kind in (
        (OptionError, ValueError),
        (ShapeError, ValueError),
        (DataError, ValueError),
        (CellError, TypeError),
        (bptt.NonFiniteError, ArithmeticError),
    ):
        assert issubclass(error, BpttError)
        assert issubclass(error, kind)
