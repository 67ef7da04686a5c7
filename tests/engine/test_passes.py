"""Each pass on programs, as text before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bptt.engine.ir.parser import parse
from bptt.engine.ir.program import Instruction, Operand, Write
from bptt.engine.ir.verifier import verify_step
from bptt.engine.passes.fusion import dots, multiply_adds, start_products
from bptt.engine.passes.horizontal_fusion import merge_neighbours
from bptt.engine.passes.rematerialization import split

WIDTHS = {"state0": 4, "state1": 4, "time0": 4, "time1": 8, "unit0": 4, "grad0": 4}
MATRICES = [(4, 4), (4, 8)]

Pass = Callable[[list[Instruction], tuple[Write, ...], list[Operand]], Any]


def after(apply: Pass, text: str) -> str:
    """What a pass makes of a step, which is verified before and after."""
    instructions, writes = parse(text, WIDTHS)
    check(instructions, writes)
    found = apply(instructions, tuple(writes), [])
    if isinstance(found, tuple):
        instructions, writes, _ = found
    else:
        instructions = found
    check(instructions, writes)
    return "\n".join(map(str, [*instructions, *writes]))


def check(instructions: Sequence[Instruction], writes: Sequence[Write]) -> None:
    given: dict[str, dict[int, int]] = {}
    for name, width in WIDTHS.items():
        given.setdefault(name[:-1], {})[int(name[-1])] = width
    lists = {space: [each[i] for i in sorted(each)] for space, each in given.items()}
    verify_step(instructions, writes, lists, MATRICES)


def lines(text: str) -> str:
    return "\n".join(filter(None, map(str.strip, text.splitlines())))


PRODUCTS = {
    "a sum becomes the start of a product": (
        """
        t0[4] = state0 @ matrix0
        t1[4] = add(t0, time0)
        next0 = t1
        """,
        """
        t1[4] = state0 @ matrix0 + time0
        next0 = t1
        """,
    ),
    "the product of the state starts from the other": (
        """
        t0[4] = state0 @ matrix0
        t1[4] = time0 @ matrix0
        t2[4] = add(t0, t1)
        next0 = t2
        """,
        """
        t1[4] = time0 @ matrix0
        t2[4] = state0 @ matrix0 + t1
        next0 = t2
        """,
    ),
    "a product that is read twice stays": (
        """
        t0[4] = state0 @ matrix0
        t1[4] = add(t0, time0)
        t2[4] = mul(t1, t0)
        next0 = t2
        """,
        """
        t0[4] = state0 @ matrix0
        t1[4] = add(t0, time0)
        t2[4] = mul(t1, t0)
        next0 = t2
        """,
    ),
    "a start of one column is no start": (
        """
        t0[4] = state0 @ matrix0
        t1[4] = add(t0, time0[1:2])
        next0 = t1
        """,
        """
        t0[4] = state0 @ matrix0
        t1[4] = add(t0, time0[1:2])
        next0 = t1
        """,
    ),
    "what nobody reads goes": (
        """
        t0[4] = tanh(state0)
        t1[4] = exp(state0)
        next0 = t0
        """,
        """
        t0[4] = tanh(state0)
        next0 = t0
        """,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_starts_of_products(name: str) -> None:
    before, expected = PRODUCTS[name]
    assert after(start_products, before) == lines(expected)


MULTIPLY_ADDS = {
    "a product and a sum are one": (
        """
        t0[4] = mul(state0, unit0)
        t1[4] = add(t0, time0)
        next0 = t1
        """,
        """
        t1[4] = mul_add(state0, unit0, time0)
        next0 = t1
        """,
    ),
    "a product that is written stays": (
        """
        t0[4] = mul(state0, unit0)
        t1[4] = add(t0, time0)
        next0 = t1
        next1 = t0
        """,
        """
        t0[4] = mul(state0, unit0)
        t1[4] = add(t0, time0)
        next0 = t1
        next1 = t0
        """,
    ),
}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds(name: str) -> None:
    before, expected = MULTIPLY_ADDS[name]
    assert after(multiply_adds, before) == lines(expected)


DOTS = {
    "the sum of a product": (
        """
        t0[4] = mul(state0, time0)
        t1[1] = sum(t0)
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
        """
        t1[1] = dot(state0, time0)
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
    ),
    "a sum of some columns is none": (
        """
        t0[4] = mul(state0, time0)
        t1[1] = sum(t0[0:2])
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
        """
        t0[4] = mul(state0, time0)
        t1[1] = sum(t0[0:2])
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
    ),
    "a factor of one column is none": (
        """
        t0[4] = mul(state0, time0[0:1])
        t1[1] = sum(t0)
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
        """
        t0[4] = mul(state0, time0[0:1])
        t1[1] = sum(t0)
        t2[4] = mul(state0, t1)
        next0 = t2
        """,
    ),
}


@pytest.mark.parametrize("name", DOTS)
def test_dots(name: str) -> None:
    before, expected = DOTS[name]
    assert after(dots, before) == lines(expected)


NEIGHBOURS = {
    "two gates of one projection": (
        """
        t0[4] = sigmoid(time1[0:4])
        t1[4] = sigmoid(time1[4:8])
        t2[4] = mul(t0, state0)
        t3[4] = mul_add(t1, state0, t2)
        next0 = t3
        """,
        """
        t4[8] = sigmoid(time1)
        t2[4] = mul(t4[0:4], state0)
        t3[4] = mul_add(t4[4:8], state0, t2)
        next0 = t3
        """,
    ),
    "unlike operators stay apart": (
        """
        t0[4] = sigmoid(time1[0:4])
        t1[4] = tanh(time1[4:8])
        t2[4] = mul(t0, t1)
        next0 = t2
        """,
        """
        t0[4] = sigmoid(time1[0:4])
        t1[4] = tanh(time1[4:8])
        t2[4] = mul(t0, t1)
        next0 = t2
        """,
    ),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_horizontal_fusion(name: str) -> None:
    before, expected = NEIGHBOURS[name]
    assert after(merge_neighbours, before) == lines(expected)


def test_what_is_saved_and_what_is_repeated() -> None:
    """A product is read from memory, a cheap operator on what is there is repeated; a result that
    the new state is needs neither."""
    instructions, writes = parse(
        """
        t0[4] = state0 @ matrix0 + time0
        t1[4] = tanh(t0)
        t2[4] = mul(state0, unit0)
        t3[4] = add(t1, t2)
        t4[4] = tanh_backward(grad0, t1)
        t5[4] = mul(grad0, t2)
        t6[4] = mul(t5, t3)
        t7[4] = add(t4, t6)
        next0 = t3
        enter0 = t7
        """,
        WIDTHS,
    )
    cut = split(instructions, (writes[0],), (writes[1],), [], keep_times=True)
    assert [str(o) for o in cut.saved] == ["t1"]
    assert [str(i) for i in cut.forward] == [str(i) for i in instructions[:4]]
    assert cut.recomputed == 1
    assert [str(i) for i in cut.backward] == [
        "t2[4] = mul(state0, unit0)",
        "t4[4] = tanh_backward(grad0, saved0)",
        "t5[4] = mul(grad0, t2)",
        "t6[4] = mul(t5, next0)",
        "t7[4] = add(t4, t6)",
    ]
