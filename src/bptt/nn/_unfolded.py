"""A call of one of PyTorch's layers as unfoldings, one for each layer and direction."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from bptt import _missing_core
from bptt.engine import Unsupported
from bptt.engine._torch_compat import is_compiling
from bptt.engine.backends import eager
from bptt.engine.runtime import native
from bptt.engine.runtime.compile_cache import context_of_call, core_missing
from bptt.nn._costs import pytorch_is_faster
from bptt.nn._dispatch import dispatched_call, keep
from bptt.nn._kinds import Kind, Standing, cell_of, holding, plan
from bptt.nn._layers import Shape, each_start, run
from bptt.nn._sequences import Sequences, enter
from bptt.state import State, optional

Input: TypeAlias = Tensor | PackedSequence
Hidden: TypeAlias = Tensor | tuple[Tensor, Tensor]

_NAMES = {torch.float32: "float32", torch.float64: "float64"}
_PLAIN = (Tensor, nn.Parameter)
PYTORCHS = frozenset({nn.RNN.forward, nn.GRU.forward, nn.LSTM.forward})
"""What the engine computes; another `forward` in the place of one of these is called."""
_CORE = core_missing() is None


class _Elsewhere(Exception):
    """The engine cannot run this call after all."""


def unfolded(layer: nn.RNNBase, input: Input, hx: Hidden | None) -> Any:
    """What ``layer(input, hx)`` gives, or None where PyTorch's own code is to do it."""
    compiling = is_compiling()
    if not compiling:
        usual = dispatched_call(layer, input) if hx is None else None
        if usual is not None:
            return usual
        if torch.is_autocast_enabled("cpu"):
            return _in_own_dtype(layer, input, hx)
        if _must_be_seen():
            return None
        if _CORE and not _transformed() and pytorch_is_faster(layer, input):
            return None
    elif torch.onnx.is_in_onnx_export():
        return None
    elif isinstance(input, PackedSequence):
        return _uncompiled(layer, input, hx)
    if not _CORE:
        data = getattr(input, "data", None)
        if not compiling and isinstance(data, Tensor) and data.device.type == "cpu":
            _missing_core.warn(stacklevel=5)
        return None
    weights = [[getattr(layer, name) for name in names] for names in layer._all_weights]
    if not _fits(layer, input, hx, weights):
        return None
    sequences = enter(input, layer.batch_first)
    try:
        found = _run(layer, sequences, hx, weights)
    except _Elsewhere:
        return None
    if len(weights) == 1 and not compiling and context_of_call() is None:
        keep(layer, _standing(_kind(layer, 0), weights[0], sequences.inputs), weights[0])
    return found


@torch._disable_dynamo  # type: ignore[attr-defined]  # the public one imports Dynamo at once
def _uncompiled(layer: nn.RNNBase, input: Input, hx: Hidden | None) -> Any:
    """How packed sequences lie in memory is data, which a graph cannot hold: it breaks here."""
    return _once_more(layer, input, hx)


def _once_more(layer: nn.RNNBase, input: Input, hx: Hidden | None) -> Any:
    """The layer's own computation; its class may have a `forward` around it."""
    found = unfolded(layer, input, hx)
    return _theirs(layer).forward(layer, input, hx) if found is None else found


def _theirs(layer: nn.RNNBase) -> Any:
    """Which of PyTorch's three a layer is."""
    return next(kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(layer, kind))


def elsewhere(layer: nn.RNNBase) -> str | None:
    """What about a layer as it is now leaves it to PyTorch's own code, None if nothing does."""
    if not _CORE:
        return "the compiled core is missing"
    if _theirs(layer).forward not in PYTORCHS:
        return f"torch.nn.{_theirs(layer).__name__}.forward was replaced"
    for name in [name for names in layer._all_weights for name in names]:
        tensor = optional(layer, name)
        if not isinstance(tensor, Tensor):
            return f"{name} is missing, or no tensor"
        if tensor.device.type != "cpu":
            return f"weights on {tensor.device}"
        if tensor.dtype not in _NAMES:
            return f"weights of {tensor.dtype}"
        if type(tensor) not in _PLAIN:
            return f"weights of the class {type(tensor).__name__}"
    return None


def _must_be_seen() -> bool:
    """Whether something watches that must see PyTorch's own layers: tracers and counters."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


def _in_own_dtype(layer: nn.RNNBase, input: Input, hx: Hidden | None) -> Any:
    """Autocast does not reach the recurrence: rounding at every step adds up over time."""
    weight = getattr(layer, layer._all_weights[0][0])

    def own(value: Any) -> Any:
        if isinstance(value, PackedSequence):
            return value._replace(data=own(value.data))
        if isinstance(value, (tuple, list)):
            return tuple(map(own, value))
        lower = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.to(weight.dtype) if lower else value

    if weight.dtype not in _NAMES:
        return None
    with torch.autocast("cpu", enabled=False):
        return _once_more(layer, own(input), own(hx))


def _fits(layer: nn.RNNBase, input: Input, hx: Any, weights: list[list[Tensor]]) -> bool:
    """Whether this is a call as it should be, on tensors that the engine reads."""
    packed = isinstance(input, PackedSequence)
    data = input.data if isinstance(input, PackedSequence) else input
    if not isinstance(data, Tensor) or data.dtype not in _NAMES or not data.numel():
        return False
    batched = packed or data.dim() == 3
    if data.dim() != (2 if packed or not batched else 3) or data.shape[-1] != layer.input_size:
        return False
    tensors = [data, *[w for ws in weights for w in ws]]
    if hx is not None:
        states = list(hx) if isinstance(hx, (tuple, list)) else [hx]
        if not _shaped(layer, input, states, batched):
            return False
        tensors += states
    dtype, compiling = data.dtype, is_compiling()
    for tensor in tensors:
        if tensor.dtype is not dtype or tensor.device.type != "cpu":
            return False
        if not compiling and type(tensor) not in _PLAIN:
            return False
    return True


def _shaped(layer: nn.RNNBase, input: Input, states: list[Any], batched: bool) -> bool:
    """Whether the given states are what the layer takes."""
    widths = _kind(layer, 0).widths
    if isinstance(input, PackedSequence):
        lanes = int(input.batch_sizes[0])
    else:
        lanes = input.shape[0 if layer.batch_first else 1] if batched else 1
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    expected = [(count, lanes, width) if batched else (count, width) for width in widths]
    if len(states) != len(expected):
        return False
    for state, shape in zip(states, expected, strict=True):
        if not isinstance(state, Tensor) or tuple(state.shape) != shape:
            return False
    return True


def _kind(layer: nn.RNNBase, number: int) -> Kind:
    directions = 2 if layer.bidirectional else 1
    below = (layer.proj_size or layer.hidden_size) * directions
    size = layer.input_size if number < directions else below
    return Kind(layer.mode, size, layer.hidden_size, layer.proj_size, layer.bias)


def _standing(kind: Kind, weights: list[Tensor], inputs: Tensor) -> Standing:
    return Standing(kind, _NAMES[inputs.dtype], tuple([w.requires_grad for w in weights]))


def _run(
    layer: nn.RNNBase, sequences: Sequences, hx: Hidden | None, weights: list[list[Tensor]]
) -> Any:
    directions = 2 if layer.bidirectional else 1
    unfold = _step_by_step if _transformed() else _natively
    if is_compiling():
        unfold = _by_operator

    def step(
        number: int, inputs: Tensor, state: State | None, _: Tensor | None
    ) -> tuple[Tensor, State, State | None]:
        assert state is not None
        return unfold(_kind(layer, number), weights[number], inputs, state, sequences.lengths)

    dropout = layer.dropout if layer.training else 0.0
    shape = Shape(layer.num_layers, directions, dropout)
    starts = _starts(layer, sequences, hx, shape)
    outputs, last, _ = run(step, shape, sequences, starts)
    if isinstance(last, Tensor):
        return sequences.output(outputs), sequences.state_out(last)
    return sequences.output(outputs), tuple([sequences.state_out(leaf) for leaf in last])  # type: ignore[arg-type]  # of tensors


def _starts(
    layer: nn.RNNBase, sequences: Sequences, hx: Hidden | None, shape: Shape
) -> list[State]:
    """The start of each layer and direction."""
    count = shape.layers * shape.directions
    if isinstance(hx, Tensor):
        return each_start(sequences.state_in(hx), count)
    if hx is not None:
        return each_start((sequences.state_in(hx[0]), sequences.state_in(hx[1])), count)
    inputs, widths = sequences.inputs, _kind(layer, 0).widths
    lanes = inputs.shape[1]
    if len(widths) == 1:
        return [inputs.new_zeros(lanes, widths[0]) for _ in range(count)]
    return [tuple([inputs.new_zeros(lanes, w) for w in widths]) for _ in range(count)]


def _natively(
    kind: Kind, weights: list[Tensor], inputs: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State, State | None]:
    """By the engine's executor, as `bptt.unfold` calls it; all it would check is checked."""
    cell = cell_of(_standing(kind, weights, inputs))
    found = plan(cell, weights, inputs, state)
    if isinstance(found, Unsupported):
        raise _Elsewhere
    return native.run(
        cell,
        inputs,
        state,
        initial=state,
        reset=None,
        lengths=lengths,
        return_states=False,
        clip=None,
        plan=found,
    )


def _transformed() -> bool:
    """Whether a transform of `torch.func`, or forward mode, is at work."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def _step_by_step(
    kind: Kind, weights: list[Tensor], inputs: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State, State | None]:
    """In plain operators, which every transform has rules for; PyTorch's own layers have none."""
    standing = Standing(kind, _NAMES[inputs.dtype], (False,) * len(weights))
    return eager.run(
        holding(standing, weights),
        inputs,
        state,
        initial=state,
        reset=None,
        lengths=lengths,
        return_states=False,
        clip=None,
    )


def _by_operator(
    kind: Kind, weights: list[Tensor], inputs: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State, State | None]:
    """By the operator ``bptt::unfold``, which compilers and transforms see through."""
    leaves = [state] if isinstance(state, Tensor) else list(state)
    name = _standing(kind, weights, inputs).name
    every = torch.ops.bptt.unfold(name, inputs, leaves, [], weights, None, lengths, None)
    # The operator keeps these very states for the gradient; a model may change its outputs.
    outputs, last = every[0][1:].clone(), [states[-1] for states in every]
    if lengths is not None:
        active = torch.arange(inputs.shape[0]).unsqueeze(1) < lengths
        outputs = torch.where(active.unsqueeze(2), outputs, 0.0)
    return outputs, last[0] if len(last) == 1 else tuple(last), None
