"""What PyTorch's tools do with a layer by its exact class or its source, which ours does not have.

Quantization looks layers up by their class and leaves out what it does not find; TorchScript
compiles a layer's source. Both get an error that names the mend. `torch.fx` keeps `torch.nn`'s own
modules as calls of modules, by the name of their package: ours ask for the same.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.fx import Proxy

from bptt.errors import CellError


def refuse_scripting(layer: nn.RNNBase) -> None:
    """Refuse to be compiled by TorchScript.

    Raises:
        CellError: always.
    """
    raise CellError(
        f"torch.jit.script cannot compile an accelerated {type(layer).__name__}: call "
        "bptt.decelerate(model) before, and bptt.accelerate on what is not scripted."
    )


def refuse_quantization(layer: nn.RNNBase, config: Any) -> None:
    """Refuse to be quantized, which would leave this layer as it is and say nothing.

    Args:
        layer: the layer.
        config: what is set as its ``qconfig``; None leaves it out on purpose, unless all layers of
            its own class are asked for.

    Raises:
        CellError: the layer is to be quantized.
    """
    if config is None and not _asked_for(layer):
        return
    raise CellError(
        f"an accelerated {type(layer).__name__} cannot be quantized, which goes by the exact "
        "classes of PyTorch's layers: call bptt.decelerate(model) before."
    )


def _asked_for(layer: nn.RNNBase) -> bool:
    """Whether somebody who sets ``qconfig`` goes by a table of classes with the layer's own, or
    PyTorch's, in it: `torch.ao.quantization` finds no entry for the accelerated class."""
    frame = sys._getframe(1)
    while frame.f_code.co_name != "_propagate_qconfig_helper":
        if frame.f_back is None:
            return False
        frame = frame.f_back
    table = frame.f_locals.get("qconfig_dict")
    own = getattr(type(layer), "__bptt_original__", None)
    kinds = (own,) if own is not None else (nn.RNN, nn.GRU, nn.LSTM)
    asked = [kind for kind in kinds if isinstance(layer, kind)]
    return isinstance(table, dict) and any(table.get(kind) is not None for kind in asked)


def as_a_leaf(layer: nn.RNNBase, input: Proxy, hx: Any) -> Any:
    """A call of the layer as `torch.fx` writes calls of `torch.nn`'s own."""
    tracer: Any = input.tracer
    given = (input,) if hx is None else (input, hx)
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), given, {})
