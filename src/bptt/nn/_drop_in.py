"""`RNN`, `GRU` and `LSTM`: PyTorch's layers, unfolded by the engine.

They are `torch.nn`'s classes with another `forward`: constructor, parameters, ``state_dict``,
attributes and printed form are inherited. What the engine does not take, and what is wrong with the
arguments, goes to PyTorch's own `forward`, which computes it or refuses it in its own words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from bptt.nn._compiling import allow_in_graph
from bptt.nn._tools import as_a_leaf, refuse_quantization, refuse_scripting
from bptt.nn._unfolded import PYTORCHS, Hidden, unfolded


class Unfolded:
    """The `forward` of the three, mixed in before PyTorch's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        allow_in_graph(type(self), untouched)  # type: ignore[arg-type]  # types are hashable

    def __setstate__(self, state: dict[str, Any]) -> None:
        allow_in_graph(type(self), untouched)  # type: ignore[arg-type]  # types are hashable
        super().__setstate__(state)  # type: ignore[misc]  # of the class that this is mixed into

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "qconfig":
            assert isinstance(self, nn.RNNBase)
            refuse_quantization(self, value)
        super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> Any:
        """What `torch.jit.script` asks of a module before it compiles anything."""
        assert isinstance(self, nn.RNNBase)
        refuse_scripting(self)

    def forward(self, input: Tensor | PackedSequence, hx: Hidden | None = None) -> Any:
        """As `torch.nn`'s layer of the same name, whose arguments and results these are."""
        assert isinstance(self, nn.RNNBase)  # TorchScript stops here: bptt.decelerate(model) first
        theirs: Any = super()  # of the class that this is mixed into
        # Where Dynamo looks inside, it has asked before: it cannot compare functions, and breaks
        # the graph elsewhere if `is_compiling` of ours is called here.
        if not torch.compiler.is_compiling() and not _is_pytorchs(theirs.forward):
            return theirs.forward(input, hx)
        found = unfolded(self, input, hx)
        if found is not None:
            return found
        if isinstance(input, Proxy) and type(self).forward is Unfolded.forward:
            return as_a_leaf(self, input, hx)
        return theirs.forward(input, hx)


def untouched(layer: Any) -> bool:
    """Whether beneath a layer is PyTorch's own `forward`, which the engine's stands for: somebody
    may have put another in its place, or a class between."""
    return _is_pytorchs(super(Unfolded, layer).forward)


def _is_pytorchs(forward: Any) -> bool:
    return getattr(forward, "__func__", None) in PYTORCHS  # a stand-in may be no method


class RNN(Unfolded, nn.RNN):
    """`torch.nn.RNN`, unfolded by the engine.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.RNN`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


class GRU(Unfolded, nn.GRU):
    """`torch.nn.GRU`, unfolded by the engine.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.GRU`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


class LSTM(Unfolded, nn.LSTM):
    """`torch.nn.LSTM`, unfolded by the engine, with ``proj_size`` too.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.LSTM`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


# One step leaves nothing to unfold, and these are cells as they are: `bptt.unfold` takes them.
RNNCell = nn.RNNCell
GRUCell = nn.GRUCell
LSTMCell = nn.LSTMCell
