"""Sums of products over all rows, from what is kept anyway.

The gradient of a gain is the sum over steps and lanes of a product that nothing else reads. Where
one factor is gathered for another gradient, gathering both is cheaper than writing the product: one
array over time less, and one instruction.
"""

from __future__ import annotations

import torch
from torch.fx import Node
from torch.linalg import vecdot

from bptt.engine.ir.program import Instruction, Operand
from bptt.engine.lowering.translator import Translator


def pair_sums(
    tr: Translator, instructions: list[Instruction], read: list[Operand]
) -> list[Operand]:
    """Rewrite ``sum(a * b)`` after the loop as a product of the rows of a and b.

    ``read`` are the operands behind the arrays that the after-graph reads, in order; so is the
    result.
    """
    made = {i.result: i for i in instructions}
    rows: dict[Operand, Node] = {}
    for operand, node in zip(read, tr.gathered_nodes, strict=True):
        if rows.setdefault(operand, node) is not node:  # they lie in one place now
            node.replace_all_uses_with(rows[operand])
            tr.after.erase_node(node)
    count = len(read)
    for operand, node in list(rows.items()):
        factors = _factors(made.get(operand.value), operand.width)
        sums = [u for u in node.users if u.target is torch.sum and u.args[1] == 0]
        if len(sums) < len(node.users) or not any(f in rows for f in factors):
            continue
        for factor in factors:
            if factor not in rows:
                rows[factor] = tr.after.placeholder(f"rows{count}")
                count += 1
        for user in sums:
            user.target, user.args = vecdot, tuple(rows[f] for f in factors)
            user.kwargs = {"dim": 0}
        tr.after.erase_node(rows.pop(operand))
    return list(rows)


def _factors(product: Instruction | None, width: int) -> list[Operand]:
    """Both factors of a product of rows."""
    if product is None or product.opcode != "mul" or product.result.width != width:
        return []
    factors = [a for a in product.arguments if isinstance(a, Operand) and a.width == width]
    fixed = any(f.value.space == "unit" for f in factors)
    return factors if len(factors) == 2 and not fixed else []
