"""Small rewritings of finished instructions: sums into products' starts, multiply-adds, dots."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from bptt.engine.ir.program import Argument, Instruction, Operand, Value, Write, living


def start_products(
    instructions: list[Instruction], writes: tuple[Write, ...], kept: list[Operand]
) -> list[Instruction]:
    """``x + a @ M`` as a product that starts from x; ``kept`` operands are read elsewhere too.

    Of two products that of the state starts from the other, which may then be made ahead of time.
    """
    read = [*(o for w in writes for o in w.operands()), *kept]
    return living(_fuse(living(instructions, read), read, _start_of_product), read)


def multiply_adds(
    instructions: list[Instruction], writes: tuple[Write, ...], kept: list[Operand]
) -> list[Instruction]:
    """``a * b + c`` as one instruction."""
    read = [*(o for w in writes for o in w.operands()), *kept]
    return living(_fuse(living(instructions, read), read, _multiply_add), read)


def dots(
    instructions: list[Instruction], writes: tuple[Write, ...], kept: list[Operand]
) -> list[Instruction]:
    """``sum(a * b)`` as one instruction, where nobody else reads the products."""
    read = [*(o for w in writes for o in w.operands()), *kept]
    uses = Counter(o.value for i in instructions for o in i.operands())
    uses.update(o.value for o in read)
    made = {i.result: i for i in instructions}

    def joined(sum_: Instruction) -> Instruction:
        (of,) = sum_.arguments
        source = made.get(of.value) if isinstance(of, Operand) else None
        if source is None or source.opcode != "mul" or uses[source.result] != 1:
            return sum_
        wide = [isinstance(a, Operand) and a.width == source.result.width for a in source.arguments]
        if not all(wide) or not _whole(of, source.result):
            return sum_
        return replace(sum_, opcode="dot", arguments=source.arguments)

    found = [joined(i) if i.opcode == "sum" else i for i in instructions]
    return living(found, read)


def _fuse(instructions: list[Instruction], read: list[Operand], rule: object) -> list[Instruction]:
    """Replace a sum by a fused instruction where ``rule`` finds a term that nobody else reads."""
    assert callable(rule)
    uses = Counter(o.value for i in instructions for o in i.operands())
    uses.update(o.value for o in read)
    made = {i.result: i for i in instructions}
    carried = _carried(instructions)
    dropped: set[Value] = set()
    fused: dict[Value, Instruction] = {}
    for instruction in instructions:
        if instruction.opcode != "add":
            continue
        a, b = instruction.arguments
        first, second = (a, b) if _is_of(carried, a) and not _is_of(carried, b) else (b, a)
        for term, other in ((first, second), (second, first)):
            if not isinstance(term, Operand) or not _whole(term, instruction.result):
                continue
            source = fused.get(term.value, made.get(term.value))
            if source is None or uses[source.result] != 1 or source.result in dropped:
                continue
            better = rule(source, other, instruction.result)
            if better is not None:
                fused[instruction.result] = better
                dropped.add(source.result)
                break
    return [fused.get(i.result, i) for i in instructions if i.result not in dropped]


def _carried(instructions: list[Instruction]) -> set[Value]:
    """What depends on the state or on its gradient."""
    found: set[Value] = set()
    for instruction in instructions:
        if any(_is_of(found, o) or o.value.space in _CARRIED for o in instruction.operands()):
            found.add(instruction.result)
    return found


_CARRIED = ("state", "grad")


def _is_of(values: set[Value], argument: Argument) -> bool:
    return isinstance(argument, Operand) and argument.value in values


def _whole(argument: Argument, result: Value) -> bool:
    return (
        isinstance(argument, Operand)
        and argument.value.space == "temp"
        and argument.width == argument.value.width == result.width
    )


def _start_of_product(source: Instruction, other: Argument, result: Value) -> Instruction | None:
    """``x + a @ M`` is a product that starts from x, which is as wide."""
    if source.opcode != "matmul" or source.arguments[0] is not None:
        return None
    if not isinstance(other, Operand) or other.width != result.width:
        return None
    return replace(source, result=result, arguments=(other, source.arguments[1]))


def _multiply_add(source: Instruction, other: Argument, result: Value) -> Instruction | None:
    """``a * b + c`` in one."""
    if source.opcode != "mul":
        return None
    return Instruction("mul_add", result, (*source.arguments, other))
