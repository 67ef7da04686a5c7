"""Interpreter and core against the eager loop: every output, every gradient, by name."""

from __future__ import annotations

import itertools

import pytest
import torch

from .oracle import assert_same, case, results
from .zoo import ZOO

CLOSE = 1e-11
SPECIAL = [
    (15, 6, True, False, None),
    (15, 3, False, True, None),
    (15, 1, False, False, 0.2),
    (63, 6, True, True, 0.2),
]


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("special", [False, True], ids=["plain", "reset, lengths, clip"])
def test_the_interpreter_equals_eager(name: str, special: bool) -> None:
    given = case(
        ZOO[name](3, 5), 3, 7, 3, reset=special, lengths=special, clip=0.3 if special else None
    )
    assert_same(results(given, "interpreted"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("hidden", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_the_core_equals_eager(name: str, hidden: int) -> None:
    cell = ZOO[name](3, hidden)
    for steps, batch in itertools.product((1, 2, 15), (1, 3, 32)):
        given = case(cell, 3, steps, batch)
        assert_same(results(given, "native"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
def test_the_core_resets_freezes_and_clips(name: str) -> None:
    cell = ZOO[name](2, 9)
    for steps, batch, reset, lengths, clip in SPECIAL:
        given = case(cell, 2, steps, batch, reset=reset, lengths=lengths, clip=clip)
        assert_same(results(given, "native"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
def test_the_core_goes_far(name: str) -> None:
    cell = ZOO[name](3, 7)
    for steps, batch in [(63, 3), (300, 1)]:
        given = case(cell, 3, steps, batch)
        assert_same(results(given, "native"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
def test_every_instruction_set(name: str) -> None:
    from bptt import _core

    given = case(ZOO[name](3, 11), 3, 8, 5, reset=True, lengths=True)
    expected = results(given, "eager")
    for variant, usable in _core.variants().items():
        if usable:
            _core.use_isa(variant)
            try:
                assert_same(results(given, "native"), expected, CLOSE)
            finally:
                _core.use_isa(None)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
def test_a_start_that_resets_return_to(name: str) -> None:
    given = case(ZOO[name](2, 5), 2, 7, 3, reset=True, given=False)
    assert_same(results(given, "native"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ["rnn", "own gru", "own lstm", "layer-normalised gru"])
def test_long_sequences(name: str) -> None:
    cell = ZOO[name](5, 11)
    for batch, special in itertools.product((1, 3, 32), (False, True)):
        given = case(cell, 5, 300, batch, reset=special, lengths=special)
        assert_same(results(given, "native"), results(given, "eager"), CLOSE)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("name", ZOO)
def test_single_precision(name: str) -> None:
    given = case(ZOO[name](3, 17), 3, 15, 5, dtype=torch.float32, reset=True)
    assert_same(results(given, "native"), results(given, "eager"), 2e-4)
