"""Sums of products after the loop, from rows that are kept anyway."""

from __future__ import annotations

import torch
from torch.linalg import vecdot

from bptt.engine.ir.program import Instruction, Operand, Value
from bptt.engine.lowering.translator import Translator
from bptt.engine.passes.reduction_fusion import pair_sums

A, B = (Operand(Value("temp", i, 4), 0, 4) for i in (0, 1))
PRODUCT = Instruction("mul", Value("temp", 2, 4), (A, B))
OF_PRODUCT = Operand(PRODUCT.result, 0, 4)


def reading(count: int) -> Translator:
    """A translator whose after-graph sums so many arrays of rows."""
    tr = Translator(torch.float32)
    tr.gathered_nodes = [tr.after.placeholder(f"rows{i}") for i in range(count)]
    sums = [tr.after.call_function(torch.sum, (node, 0)) for node in tr.gathered_nodes]
    tr.after.output(sums)
    return tr


def targets(tr: Translator) -> list[object]:
    return [n.target for n in tr.after.nodes if n.op == "call_function"]


def test_a_factor_that_is_gathered_anyway_makes_a_product_of_rows() -> None:
    tr = reading(2)
    assert pair_sums(tr, [PRODUCT], [A, OF_PRODUCT]) == [A, B]
    assert targets(tr) == [torch.sum, vecdot]


def test_a_product_of_what_nobody_gathers_is_left_alone() -> None:
    tr = reading(1)
    assert pair_sums(tr, [PRODUCT], [OF_PRODUCT]) == [OF_PRODUCT]
    assert targets(tr) == [torch.sum]


def test_a_product_that_is_read_otherwise_too_is_left_alone() -> None:
    tr = reading(2)
    with tr.after.inserting_before(tr.after.output_node()):
        tr.after.call_function(torch.neg, (tr.gathered_nodes[1],))
    assert pair_sums(tr, [PRODUCT], [A, OF_PRODUCT]) == [A, OF_PRODUCT]


def test_arrays_that_lie_in_one_place_are_one() -> None:
    tr = reading(3)
    assert pair_sums(tr, [], [A, B, A]) == [A, B]
    given = [n for n in tr.after.nodes if n.op == "placeholder"]
    assert [n.args[0] for n in tr.after.nodes if n.target is torch.sum] == [*given, given[0]]
