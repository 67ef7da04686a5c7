"""PyTorch's tracer, and all that is private or experimental about it, in one place.

The cell is traced twice under fake tensors, with two numbers of lanes that no layer has: what
differs between the traces depends on the number of lanes, everything else does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.overrides import TorchFunctionMode

from bptt.cells._stack import output_of
from bptt.engine.assignments import without_writes
from bptt.engine.eager import check_step
from bptt.engine.nodes import LANES, ends
from bptt.engine.normalization import layer_norm, layer_norm_backward
from bptt.engine.reasons import Reason, Refusal, line_of_error
from bptt.engine.sources import Source, replaced
from bptt.errors import BpttError
from bptt.state import State, leaves, rebuild

_aten = torch.ops.aten


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table of the second stage: everything down to what `bptt.engine.operators` reads."""
    table = dict(core_aten_decompositions())
    more = [
        _aten._softmax,
        _aten._log_softmax,
        _aten.gelu,
        _aten.silu,
        _aten.elu,
        _aten.leaky_relu,
        _aten.hardtanh,
        _aten.hardsigmoid,
        _aten.hardswish,
        _aten.softplus_backward,
        _aten.mish,
        _aten.log_sigmoid_forward,
        _aten.glu,
        _aten.lerp,
        _aten.addcmul,
        _aten.addcdiv,
        _aten.rsub,
        _aten.masked_fill,
        _aten.threshold_backward,
        _aten.std,
        _aten.logaddexp,
        _aten.logit,
        _aten.celu,
        _aten.selu,
        _aten.rad2deg,
    ]
    table.update(get_decompositions(more))
    table[_aten.native_layer_norm.default] = layer_norm
    table[_aten.native_layer_norm_backward.default] = layer_norm_backward
    kept_whole: tuple[Any, ...] = (
        _aten.tanh_backward,
        _aten.sigmoid_backward,
        _aten.softplus,
        _aten.addmm,
        _aten.slice_scatter,
        _aten.select_scatter,
    )
    for kept in kept_whole:
        for name in kept.overloads():
            table.pop(getattr(kept, name), None)
    return table


class _GradModeWatch(TorchFunctionMode):
    """Refuses a cell that switches gradients off: a trace would forget that it did."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch._C._set_grad_enabled:
            raise Refusal(Reason.AUTOGRAD, "torch.no_grad")
        return function(*args, **(kwargs or {}))


def fake_mode() -> FakeTensorMode:
    """Tensors with shapes and no data; real constants may join in."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def trace_cell(
    cell: nn.Module,
    sources: tuple[Source, ...],
    tensors: list[Tensor],
    example: Tensor,
    state: State,
    lanes: int,
) -> GraphModule:
    """Stage 1: one step as a graph, ``(*sources, input, *state leaves) -> new state leaves``.

    ``example`` is the input of a step and ``state`` the state, with any number of lanes.

    Raises:
        Refusal: the step cannot be traced.
        CellError: the cell breaks its contract.
    """
    mode = fake_mode()
    owned = tuple(mode.from_tensor(tensor) for tensor in tensors)
    given = tuple(_fake_like(mode, leaf, lanes) for leaf in [example, *leaves(state)])

    def step(*flat: Tensor) -> list[Tensor]:
        own, entering = flat[: len(owned)], rebuild(state, list(flat[len(owned) + 1 :]))
        new = call_cell(cell, sources, own, (flat[len(owned)], entering))
        check_step(cell, new, entering)
        for leaf in leaves(new):
            _refuse_own_gradients(leaf)
        return leaves(new)

    return _first_stage(step, [*owned, *given])


def trace_output(
    cell: nn.Module, sources: tuple[Source, ...], tensors: list[Tensor], state: State
) -> GraphModule:
    """The cell's ``output`` as a graph, ``(*sources, *state leaves) -> output``.

    Raises:
        Refusal: it cannot be traced.
    """
    mode = fake_mode()
    owned = tuple(mode.from_tensor(tensor) for tensor in tensors)
    given = tuple(_fake_like(mode, leaf, LANES[0]) for leaf in leaves(state))

    def output(*flat: Tensor) -> list[Tensor]:
        own, entering = flat[: len(owned)], rebuild(state, list(flat[len(owned) :]))
        return [call_cell(_OutputOf(cell), sources, own, (entering,))]

    return _first_stage(output, [*owned, *given])


class _OutputOf(nn.Module):
    """A cell's ``output`` as a module to call."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, state: State) -> Tensor:
        return output_of(self.cell, state)


def _first_stage(function: Callable[..., Any], given: list[Tensor]) -> GraphModule:
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return make_fx(
                function,
                decomposition_table={},
                _allow_non_fake_inputs=True,
                record_stack_traces=True,
            )(*given)
    except (Refusal, BpttError) as error:
        if isinstance(error, Refusal) and error.ineligible.location is None:
            told = error.ineligible
            raise Refusal(told.reason, told.operator, line_of_error(error)) from None
        raise
    except Exception as error:
        raise _refusal(error) from error


def _fake_like(mode: FakeTensorMode, tensor: Tensor, lanes: int) -> Tensor:
    with mode:
        shape = (lanes, *tensor.shape[1:])
        made = torch.empty(shape, dtype=tensor.dtype)
        return made.requires_grad_(tensor.is_floating_point())


def call_cell(
    cell: nn.Module,
    sources: tuple[Source, ...],
    own: tuple[Tensor, ...],
    arguments: tuple[Any, ...],
) -> Any:
    """Run the cell with its tensors replaced, and see that it put none of its own in their
    place."""
    with _GradModeWatch(), replaced(sources, own):
        new = cell(*arguments)
        for source, tensor in zip(sources, own, strict=True):
            if source.changed(tensor):
                raise Refusal(Reason.MUTATION, f"{source.kind} {source.name}")
    return new


def _refuse_own_gradients(leaf: Tensor) -> None:
    """A `torch.autograd.Function` has a backward that the trace of its forward does not show."""
    waiting, seen = [leaf.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise Refusal(Reason.AUTOGRAD, f"torch.autograd.Function {type(node).__name__}")
        waiting.extend(edge[0] for edge in node.next_functions)


def _refusal(error: Exception) -> Refusal:
    line = line_of_error(error)
    if isinstance(error, DataDependentOutputException):
        return Refusal(Reason.CONTROL_FLOW, str(error.func), line)
    text = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {text[0] if text else ''}"
    if "in-place operation" in str(error):
        return Refusal(Reason.MUTATION, message, line)
    dependent = "data-dependent" in str(error).lower() or "GuardOnDataDependent" in message
    return Refusal(Reason.CONTROL_FLOW if dependent else Reason.UNTRACEABLE, message, line)


def decompose(step: GraphModule, inputs: list[Tensor]) -> GraphModule:
    """The graph of a step with every operator taken apart; source lines are kept."""

    def again(*flat: Tensor) -> Any:
        with preserve_node_meta():
            return Interpreter(step).run(LANES[0], *flat)

    return _second_stage(again, inputs)


def differentiate(step: GraphModule, inputs: list[Tensor], wanted: list[bool]) -> GraphModule:
    """Stage 2: the step and its vector-Jacobian product in one graph.

    ``(*inputs, *cotangents of the outputs) -> (*outputs, *gradients of the wanted inputs)``, a
    gradient being None where the outputs do not depend on the input.
    """
    outputs = [n.meta["val"] for n in ends(step.graph)]

    def joint(*flat: Tensor) -> list[Tensor | None]:
        primals = [t.detach().requires_grad_(need) for t, need in zip(flat, wanted, strict=False)]
        cotangents = flat[len(inputs) :]
        with preserve_node_meta():
            new = Interpreter(step).run(LANES[0], *primals)
        carried = [(n, g) for n, g in zip(new, cotangents, strict=True) if n.requires_grad]
        asked = [p for p, need in zip(primals, wanted, strict=True) if need]
        if not carried or not asked:
            return [*new, *(None for _ in asked)]
        grads = torch.autograd.grad(
            [n for n, _ in carried], asked, [g for _, g in carried], allow_unused=True
        )
        return [*new, *grads]

    mode = next(t.fake_mode for t in inputs if isinstance(t, FakeTensor))
    with mode:
        cotangents = [torch.empty(o.shape, dtype=o.dtype) for o in outputs]
    return _second_stage(joint, [*inputs, *cotangents])


def differentiate_rows(
    hoisted: GraphModule, inputs: list[Tensor], wanted: list[bool], flowing: tuple[int, ...]
) -> GraphModule:
    """A hoisted part and its backward: ``(*inputs, *cotangents) -> (*outputs, *gradients)``.

    Cotangents are of the outputs numbered in ``flowing``, gradients of the ``wanted`` inputs.
    Nothing is decomposed: this runs in PyTorch.
    """
    outputs = [n.meta["val"] for n in ends(hoisted.graph)]

    def joint(*flat: Tensor) -> list[Tensor | None]:
        primals = [t.detach().requires_grad_(w) for t, w in zip(flat, wanted, strict=False)]
        results = Interpreter(hoisted).run(LANES[0], *primals)
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
    return _second_stage(joint, [*inputs, *cotangents], {})


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
