"""Graphs taken apart into the operators that the engine reads, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from bptt.engine.graphs.decompositions import decompositions
from bptt.engine.graphs.functionalize import OVERWRITES, without_writes
from bptt.engine.graphs.nodes import LANES, ends
from bptt.engine.graphs.origins import OriginInterpreter
from bptt.engine.graphs.tracing import fake_mode


def decompose(step: GraphModule, inputs: list[Tensor]) -> GraphModule:
    """The graph of a step with every operator taken apart; source lines are kept."""

    def again(*flat: Tensor) -> Any:
        with preserve_node_meta():
            return Interpreter(step).run(LANES[0], *flat)

    return _second_stage(again, inputs)


def differentiate(
    step: GraphModule, inputs: list[Tensor], wanted: list[bool]
) -> tuple[GraphModule, tuple[int, ...]]:
    """Stage 2: the step and its vector-Jacobian product in one graph.

    ``(*inputs, *cotangents of the outputs) -> (*outputs, *gradients of the wanted inputs)``, a
    gradient being None where the outputs do not depend on the input. And of each output, as bits,
    the wanted inputs that its gradient reaches.
    """
    outputs = [n.meta["val"] for n in ends(step.graph)]
    reached: tuple[int, ...] = ()

    def joint(*flat: Tensor) -> list[Tensor | None]:
        primals = [t.detach().requires_grad_(need) for t, need in zip(flat, wanted, strict=False)]
        cotangents = flat[len(inputs) :]
        with preserve_node_meta():
            new = OriginInterpreter(step).run(LANES[0], *primals)
        nonlocal reached
        reached = _reached(step, new, primals)
        carried = [(n, g) for n, g in zip(new, cotangents, strict=True) if n.requires_grad]
        asked = [p for p, need in zip(primals, wanted, strict=True) if need]
        if not carried or not asked:
            return [*new, *(None for _ in asked)]
        with preserve_node_meta():
            grads = torch.autograd.grad(
                [n for n, _ in carried], asked, [g for _, g in carried], allow_unused=True
            )
        return [*new, *grads]

    mode = next(t.fake_mode for t in inputs if isinstance(t, FakeTensor))
    with mode:
        cotangents = [torch.empty(o.shape, dtype=o.dtype) for o in outputs]
    return _second_stage(joint, [*inputs, *cotangents]), reached


ALL = -1
"""Bits of everything there is, also of what the graph has lost."""


def _reached(
    module: GraphModule, results: Sequence[Any], primals: Sequence[Tensor]
) -> tuple[int, ...]:
    """Of each result, as bits, the primals (leaves of autograd) that its gradient reaches."""
    bits = {id(primal): 1 << i for i, primal in enumerate(primals) if primal.requires_grad}
    if any(OVERWRITES in node.meta for node in module.graph.nodes):
        return (ALL,) * len(results)
    return tuple(_behind(r, bits) if isinstance(r, Tensor) else 0 for r in results)


def _behind(result: Tensor, bits: dict[int, int]) -> int:
    found, waiting, known = bits.get(id(result), 0), [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        found |= bits.get(id(getattr(node, "variable", None)), 0)
        waiting.extend(before for before, _ in node.next_functions)
    return found


def differentiate_rows(
    hoisted: GraphModule, inputs: list[Tensor], wanted: list[bool], flowing: tuple[int, ...]
) -> tuple[GraphModule, tuple[int, ...]]:
    """A hoisted part and its backward: ``(*inputs, *cotangents) -> (*outputs, *gradients)``.

    Cotangents are of the outputs numbered in ``flowing``, gradients of the ``wanted`` inputs.
    Nothing is decomposed: this runs in PyTorch. And of each output, as bits, the wanted inputs that
    its gradient reaches.
    """
    outputs = [n.meta["val"] for n in ends(hoisted.graph)]
    reached: tuple[int, ...] = ()

    def joint(*flat: Tensor) -> list[Tensor | None]:
        primals = [t.detach().requires_grad_(w) for t, w in zip(flat, wanted, strict=False)]
        results = Interpreter(hoisted).run(LANES[0], *primals)
        nonlocal reached
        reached = _reached(hoisted, results, primals)
        carried = [(results[i], g) for i, g in zip(flowing, flat[len(inputs) :], strict=True)]
        carried = [(r, g) for r, g in carried if r.requires_grad]
        asked = [p for p, w in zip(primals, wanted, strict=True) if w]
        if not carried or not asked:
            return [*results, *(None for _ in asked)]
        grads = torch.autograd.grad(
            [r for r, _ in carried], asked, [g for _, g in carried], allow_unused=True
        )
        return [*results, *grads]

    mode = next(t.fake_mode for t in inputs if isinstance(t, FakeTensor))
    with mode:
        cotangents = [torch.empty(outputs[i].shape, dtype=outputs[i].dtype) for i in flowing]
    return _second_stage(joint, [*inputs, *cotangents], {}), reached


def _second_stage(
    function: Callable[..., Any], inputs: list[Tensor], table: Any = None
) -> GraphModule:
    # Anomaly detection would look for NaN in tensors that hold no data.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autograd.set_detect_anomaly(False),
    ):
        module = make_fx(
            function,
            decomposition_table=decompositions() if table is None else table,
            _allow_non_fake_inputs=True,
        )(*inputs)
    without_writes(module.graph)
    module.graph.eliminate_dead_code()
    return module


def fakes_for(nodes: list[torch.fx.Node]) -> list[Tensor]:
    """Fresh fake tensors, all of one mode, shaped like the values of ``nodes``."""
    mode = fake_mode()
    with mode:
        made = []
        for node in nodes:
            like = node.meta["val"]
            made.append(torch.empty_strided(like.shape, like.stride(), dtype=like.dtype))
    return made
