"""A step program as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bptt.engine.ir.program import Given, Step, StepProgram


def listing(program: StepProgram) -> str:
    """What is hoisted, what runs each step, what is saved, and what remains after the loop."""
    parts = [
        f"step program of {program.cell}, {program.dtype}",
        f"state: {', '.join(f'state{j}[{n}]' for j, n in enumerate(program.states))}",
        *_hoisted(program),
        "before the loop, once:",
        *_indent(program.prepare.text.splitlines() or ["(nothing)"]),
        *_given(program),
        f"each step forward ({program.forward.count()} instructions):",
        *_step(program.forward),
    ]
    if program.backward is not None and program.after is not None:
        saved = ", ".join(f"saved{k}[{n}]" for k, n in enumerate(program.saved))
        parts += [
            f"saved each step: {saved or 'the states alone'}; "
            f"{program.recomputed} instructions repeated",
            f"each step backward ({program.backward.count()} instructions):",
            *_step(program.backward),
            "after the loop, once, over all steps and lanes:",
            *_indent(f"rows{i} = {g}" for i, g in enumerate(program.after.gathered)),
            *_indent(program.after.code.text.splitlines()),
            *_indent(_gradients(program)),
        ]
    return "\n".join(parts)


def _hoisted(program: StepProgram) -> list[str]:
    if program.hoisted is None:
        return ["hoisted: nothing; the step takes what it needs as it is"]
    how = "all steps at once" if program.folds else "vectorised over steps"
    return [
        f"hoisted over parameters and over time ({how}):",
        *_indent(_named(program).splitlines()),
    ]


def _named(program: StepProgram) -> str:
    """The hoisted part with its arguments by the names of the cell's tensors."""
    assert program.hoisted is not None
    given = program.hoisted.graph.graph.find_nodes(op="placeholder")[1:]
    text = program.hoisted.text
    for node, name in zip(given, [*program.sources, "input"], strict=True):
        text = re.sub(rf"\b{node.name}\b", name, text)
    return text


def _given(program: StepProgram) -> list[str]:
    def row(kind: str, i: int, given: Given) -> str:
        gradient = ", with gradient" if given.differentiable else ""
        return f"{kind}{i} = {given.name} {list(given.shape)}{gradient}"

    lines = [row("param", i, g) for i, g in enumerate(program.params)]
    lines += [row("time", i, g) for i, g in enumerate(program.times)]
    lines += [f"matrix{i} {list(shape)}" for i, shape in enumerate(program.matrices)]
    lines += [f"unit{i}[{n}]" for i, n in enumerate(program.units)]
    return ["given to each step:", *_indent(lines)]


def _step(step: Step) -> list[str]:
    return _indent([*map(str, step.instructions), *map(str, step.writes)])


def _gradients(program: StepProgram) -> list[str]:
    assert program.after is not None
    lines = []
    for given, place in zip(program.times, program.after.times, strict=True):
        if place is not None:
            lines.append(f"gradient of {given.name} = {place}")
    named = [
        g.name for g, has in zip(program.params, program.after.has_gradient, strict=True) if has
    ]
    return [*lines, f"gradients of {', '.join(named)}"] if named else lines


def _indent(lines: Iterable[Any]) -> list[str]:
    return [f"  {line}" for line in lines]
