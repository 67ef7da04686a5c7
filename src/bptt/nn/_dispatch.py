"""The usual call of a layer: one layer in one direction over a padded batch, from zeros, unchanged
since the last such call.

What a first call found out need not be found out again: around a short window that would take
longer than the loop. Everything else goes the long way, `bptt.nn._unfolded`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bptt._identity import ByIdentity
from bptt.engine import Plan, Unsupported
from bptt.engine.runtime import native
from bptt.engine.runtime.compile_cache import context_of_call
from bptt.nn._costs import pytorch_is_faster
from bptt.nn._kinds import Standing, cell_of, plan
from bptt.state import State


class _Dispatch:
    """What was found out.

    Args:
        layer: the layer.
        standing: its cell.
        weights: its parameters as they are now.
        device: theirs.
    """

    __slots__ = (
        "_lanes",
        "_names",
        "_options",
        "_plans",
        "_start",
        "_weights",
        "device",
        "dtype",
        "standing",
    )

    def __init__(
        self, layer: nn.RNNBase, standing: Standing, weights: list[Tensor], device: torch.device
    ) -> None:
        self.standing, self.device, self.dtype = standing, device, weights[0].dtype
        self._names, self._weights = tuple(layer._all_weights[0]), tuple(weights)
        self._options = _options(layer)
        self._plans: dict[tuple[bool, bool], Plan] = {}
        self._start: State | None = None
        self._lanes = -1

    def holds(self, layer: nn.RNNBase) -> bool:
        """Whether the layer is what it was."""
        if _options(layer) != self._options:
            return False
        held, dtype = layer._parameters, self.dtype
        needs = self.standing.needs
        for name, weight, need in zip(self._names, self._weights, needs, strict=True):
            if held.get(name) is not weight or weight.requires_grad is not need:
                return False
            if weight.dtype is not dtype or weight.device != self.device:
                return False
        return True

    def start(self, inputs: Tensor) -> State:
        """Zeros, which nobody changes."""
        lanes = inputs.shape[1]
        if self._start is None or lanes != self._lanes:
            widths = self.standing.kind.widths
            with torch.inference_mode(False):  # they outlive the mode of this call
                zeros = tuple([inputs.new_zeros(lanes, width) for width in widths])
            self._start, self._lanes = zeros if len(zeros) > 1 else zeros[0], lanes
        return self._start

    def plan(self, inputs: Tensor, start: State) -> Plan | None:
        """The plan, None if there is none after all."""
        grad = torch.is_grad_enabled()
        key = (grad, grad and inputs.requires_grad)
        found = self._plans.get(key)
        if found is None:
            made = plan(cell_of(self.standing), list(self._weights), inputs, start)
            if isinstance(made, Unsupported):
                return None
            found = self._plans[key] = made
        return found


_KNOWN: ByIdentity[_Dispatch] = ByIdentity()


def keep(layer: nn.RNNBase, standing: Standing, weights: list[Tensor]) -> None:
    """Remember a call that went well: of one layer in one direction."""
    known = _KNOWN.get(layer)
    plain = all(map(layer._parameters.__contains__, layer._all_weights[0]))
    if plain and (known is None or not known.holds(layer)):
        _KNOWN[layer] = _Dispatch(layer, standing, weights, weights[0].device)


def dispatched_call(layer: nn.RNNBase, input: Any) -> Any:
    """What ``layer(input)`` gives; None where it is no usual call."""
    usual = _KNOWN.get(layer)
    if usual is None or type(input) is not Tensor or context_of_call() is not None:
        return None
    shape = input.shape
    if len(shape) != 3 or shape[2] != layer.input_size or not input.numel():
        return None
    if input.dtype is not usual.dtype or input.device != usual.device or not usual.holds(layer):
        return None
    if pytorch_is_faster(layer, input):
        return None
    inputs = input.transpose(0, 1) if layer.batch_first else input
    start = usual.start(inputs)
    found = usual.plan(inputs, start)
    if found is None:
        return None
    outputs, last, _ = native.run(
        cell_of(usual.standing),
        inputs,
        start,
        initial=start,
        reset=None,
        lengths=None,
        return_states=False,
        clip=None,
        plan=found,
    )
    outputs = outputs.transpose(0, 1) if layer.batch_first else outputs
    if isinstance(last, Tensor):
        return outputs, last.unsqueeze(0)
    return outputs, tuple([leaf.unsqueeze(0) for leaf in last])  # type: ignore[union-attr]  # of tensors


def _options(layer: nn.RNNBase) -> tuple[Any, ...]:
    return (
        layer.mode,
        layer.input_size,
        layer.hidden_size,
        layer.proj_size,
        layer.bias,
        layer.num_layers,
        layer.bidirectional,
    )
