"""What PyTorch runs before and after the loop, each as one straight-line function.

Where the hoisted part treats every row alone, its own backward is traced with it, and both run
inside the loop's autograd function: one node in the graph of autograd, and no ceremony around a
handful of small products. Otherwise (`inline` false) the hoisted part runs outside, under autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from bptt.engine.graphs.cleanup import code_of, tidy
from bptt.engine.graphs.differentiate import ALL, differentiate_rows, fakes_for
from bptt.engine.graphs.hoist import Partition, is_view, lanes_by_name
from bptt.engine.graphs.nodes import ends, placeholders
from bptt.engine.ir.program import Code, StepProgram
from bptt.engine.passes.reach import Reach


@dataclass(frozen=True, eq=False)
class Frame:
    """What runs around the loop of a program.

    Attributes:
        inline: whether the primals are (*sources, input), not (*params, *times).
        deep: whether the prologue takes the input as [T, B, n] and gives times so (else it wants
        rows). turned: which of its results the prologue leaves out, and the primals whose
        transposes they are.
        prologue: ``(lanes, *primals) -> (*matrices, *units, *extras, *times, *kept)``.
        epilogue: ``(lanes, *primals, *extras, *kept, *rows, *gradients of times) -> (*gradients of
        primals)``.
        reach: which primals, and leaves before it, the leaves of a new state reach.
    """

    inline: bool
    deep: bool
    turned: tuple[tuple[int, int], ...]
    prologue: Code
    epilogue: Code | None
    reach: Reach


@dataclass(frozen=True, eq=False)
class _Hoisted:
    """The hoisted part with its backward in one graph, and where to cut it."""

    module: GraphModule
    ahead: frozenset[Node]
    kept: tuple[Node, ...]
    outputs: tuple[Any, ...]
    gradients: dict[int, Any]
    flowing: tuple[int, ...]
    reached: tuple[int, ...]


class _Weaver:
    """Copies graphs into one, their placeholders bound to nodes that are there already."""

    def __init__(self, primals: int) -> None:
        self.graph = Graph()
        self.root = nn.Module()
        self.lanes = self.graph.placeholder("lanes")
        self.primals = self.inputs("primal", primals)

    def inputs(self, stem: str, count: int) -> list[Node]:
        """New placeholders."""
        return [self.graph.placeholder(f"{stem}{i}") for i in range(count)]

    def weave(
        self, module: GraphModule, known: dict[Node, Any], only: Any = None
    ) -> dict[Node, Any]:
        """Copy the nodes that are not known yet (of those in ``only``, if it is given)."""
        for node, bound in known.items():
            if isinstance(bound, Node) and "val" in node.meta:
                bound.meta.setdefault("val", node.meta["val"])
        for node in module.graph.nodes:
            if node in known or node.op == "output" or (only is not None and node not in only):
                continue
            if node.op == "get_attr":
                known[node] = self._constant(getattr(module, str(node.target)))
                continue
            made = known[node] = self.graph.node_copy(node, lambda n: known[n])
            made.args = lanes_by_name(made.args, self.lanes)
            made.kwargs = lanes_by_name(made.kwargs, self.lanes)
        return known

    def _constant(self, value: torch.Tensor) -> Node:
        name = f"constant{len(self.root._buffers)}"  # `buffers()` leaves out what is there twice
        self.root.register_buffer(name, value)
        return self.graph.get_attr(name)

    def finish(self, outputs: list[Any]) -> Code:
        """The function."""
        self.graph.output(tuple(outputs))
        return code_of(GraphModule(self.root, tidy(self.graph)))


def frame_of(program: StepProgram, parts: Partition, wanted: tuple[bool, ...]) -> Frame:
    """Weave the functions of a program; ``wanted`` tells which of (*sources, input) need a
    gradient."""
    inline = program.hoisted is None or program.folds
    hoisted = (
        _differentiated(program, parts, wanted) if inline and program.hoisted is not None else None
    )
    prologue = _prologue(program, hoisted, inline)
    turned = _leave_out_transposes(prologue.graph)
    deep = inline and _only_projects(prologue.graph)
    epilogue = None if program.after is None else _epilogue(program, hoisted, inline)
    reach = _reach(program, hoisted, inline)
    return Frame(inline, deep, turned, code_of(prologue.graph), epilogue, reach)


def _reach(program: StepProgram, hoisted: _Hoisted | None, inline: bool) -> Reach:
    """What the step reaches, and through what the hoisted part."""
    given = [*program.params, *program.times]
    behind = [1 << i for i in range(len(given))]
    if inline:
        through = (0,) * len(given) if hoisted is None else hoisted.reached
        behind = [
            bits if g.source is None else 1 << _place(g.source, program)
            for g, bits in zip(given, through, strict=True)
        ]
    primals = [0] * len(program.reached)
    for j, bits in enumerate(program.reached):
        primals[j] = ALL if bits == ALL else 0
        for i, own in enumerate(behind):
            primals[j] |= own if bits >> i & 1 else 0
    states = tuple(bits >> len(given) for bits in program.reached)
    return Reach(tuple(primals), states, _primals(program, inline), inline)


def _leave_out_transposes(module: GraphModule) -> tuple[tuple[int, int], ...]:
    """A transposed weight is a view that lasts as long as the weight: no need to make it in every
    call."""
    end = module.graph.output_node()
    primals = placeholders(module.graph)[1:]
    results = ends(module.graph)
    turned = []
    for i, node in enumerate(results):
        if (
            isinstance(node, Node)
            and node.op == "call_method"
            and node.target == "t"
            and node.args[0] in primals
        ):
            turned.append((i, primals.index(node.args[0])))  # type: ignore[arg-type]  # torch.fx types its arguments as anything
            results[i] = None
    end.args = (tuple(results),)
    module.graph.eliminate_dead_code()
    module.recompile()
    return tuple(turned)


def _only_projects(module: GraphModule) -> bool:
    """Whether all that is done with the input is a linear map."""
    given = placeholders(module.graph)[-1]
    projected = all(u.target is nn.functional.linear and u.args[0] is given for u in given.users)
    last = all(v.op == "output" for u in given.users for v in u.users)
    return bool(given.users) and projected and last


def _primals(program: StepProgram, inline: bool) -> int:
    return len(program.sources) + 1 if inline else len(program.params) + len(program.times)


def _place(source: int, program: StepProgram) -> int:
    return len(program.sources) if source == -1 else source


def _differentiated(program: StepProgram, parts: Partition, wanted: tuple[bool, ...]) -> _Hoisted:
    assert parts.hoisted is not None
    given = [*program.params, *program.times]
    after = program.after
    has = [] if after is None else [*after.has_gradient, *(t is not None for t in after.times)]
    flowing = tuple(i for i, flows in enumerate(has) if flows and given[i].source is None)
    inputs = [n for n in parts.hoisted.graph.nodes if n.op == "placeholder"][1:]
    asked = [w and n.meta["val"].is_floating_point() for w, n in zip(wanted, inputs, strict=True)]
    module, reached = differentiate_rows(parts.hoisted, fakes_for(inputs), asked, flowing)
    results = ends(module.graph)
    outputs = tuple(results[: len(given)])
    found = _upstream([o for o in outputs if isinstance(o, Node)])
    found |= {n for n in module.graph.nodes if _is_item(n) and n.args[0] in found}
    ahead = frozenset(found)
    kept = tuple(
        n
        for n in module.graph.nodes
        if n in ahead
        and isinstance(n.meta.get("val"), torch.Tensor)
        and n.op == "call_function"
        and not _is_view_of_heads(n)
        and any((u not in ahead or _is_view_of_heads(u)) and u.op != "output" for u in n.users)
    )
    gradients = dict(zip([i for i, a in enumerate(asked) if a], results[len(given) :], strict=True))
    return _Hoisted(module, ahead, kept, outputs, gradients, flowing, reached[: len(given)])


def _prologue(program: StepProgram, hoisted: _Hoisted | None, inline: bool) -> Code:
    weaver, first = _Weaver(_primals(program, inline)), len(program.params)
    kept: list[Any] = []
    if hoisted is not None:
        known = dict(zip(placeholders(hoisted.module.graph), weaver.primals, strict=False))
        known = weaver.weave(hoisted.module, known, hoisted.ahead)
        given, kept = [known[o] for o in hoisted.outputs], [known[k] for k in hoisted.kept]
    else:
        given = _pick(program, inline, weaver.primals)
    prepare: GraphModule = program.prepare.graph
    known = weaver.weave(prepare, dict(zip(placeholders(prepare.graph), given, strict=False)))
    prepared = [known[n] for n in ends(prepare.graph)]
    return weaver.finish([*prepared, *given[first:], *kept])


def _pick(program: StepProgram, inline: bool, primals: list[Node]) -> list[Node]:
    if not inline:
        return primals
    given = [*program.params, *program.times]
    return [primals[_place(g.source, program)] for g in given if g.source is not None]


def _epilogue(program: StepProgram, hoisted: _Hoisted | None, inline: bool) -> Code:
    after, weaver = program.after, _Weaver(_primals(program, inline))
    assert after is not None
    extras = weaver.inputs("extra", len(after.extras))
    kept = weaver.inputs("kept", 0 if hoisted is None else len(hoisted.kept))
    rows = weaver.inputs("rows", len(after.gathered))
    module: GraphModule = after.code.graph
    known = weaver.weave(
        module, dict(zip(placeholders(module.graph), [*rows, *extras], strict=True))
    )
    found_after = iter([known[n] for n in ends(module.graph)])
    every: list[Any] = [next(found_after) if has else None for has in after.has_gradient]
    for i, place in enumerate(after.times):
        if place is None:
            every.append(None)
            continue
        given_anew = weaver.graph.placeholder(f"time{i}")
        same = place in after.gathered and len(program.times[i].shape) == 1
        every.append(rows[after.gathered.index(place)] if same else given_anew)
    if not inline:
        return weaver.finish(every)
    found: list[Any] = [None] * _primals(program, inline)
    if hoisted is not None:
        bound = [*weaver.primals, *(every[i] for i in hoisted.flowing)]
        known = dict(zip(placeholders(hoisted.module.graph), bound, strict=True))
        known |= dict(zip(hoisted.kept, kept, strict=True))
        behind = _upstream(
            [g for g in hoisted.gradients.values() if isinstance(g, Node)], set(known)
        )
        weaver.weave(hoisted.module, known, behind)
        for i, gradient in hoisted.gradients.items():
            found[i] = None if gradient is None else known[gradient]
    for given, gradient in zip([*program.params, *program.times], every, strict=True):
        if given.source is not None and gradient is not None:
            i = _place(given.source, program)
            both = (found[i], gradient)
            found[i] = gradient if found[i] is None else weaver.graph.call_function(torch.add, both)
    return weaver.finish(found)


def _is_item(node: Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _is_view_of_heads(node: Node) -> bool:
    """What is only another look at a primal is looked at again, not kept."""
    seen = all(a.op == "placeholder" or _is_view_of_heads(a) for a in node.all_input_nodes)
    same = node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default)
    return node.op == "call_function" and seen and (same or is_view(node))


def _upstream(nodes: list[Node], until: set[Node] | None = None) -> set[Node]:
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found and not (until and node in until):
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found
