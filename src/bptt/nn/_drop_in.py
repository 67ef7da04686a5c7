"""`RNN`, `GRU` and `LSTM`: PyTorch's layers, unfolded by the engine.

They are `torch.nn`'s classes with another `forward`: constructor, parameters, ``state_dict``,
attributes and printed form are inherited. What the engine does not take, and what is wrong with the
arguments, goes to PyTorch's own `forward`, which computes it or refuses it in its own words.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.nn._compiling import allow_in_graph
from bptt.nn._unfolded import Hidden, unfolded


class _Unfolded:
    """The `forward` of the three, mixed in before PyTorch's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        allow_in_graph(type(self))  # type: ignore[arg-type]  # types are hashable

    def __setstate__(self, state: dict[str, Any]) -> None:
        allow_in_graph(type(self))  # type: ignore[arg-type]  # types are hashable
        super().__setstate__(state)  # type: ignore[misc]  # of the class that this is mixed into

    def forward(self, input: Tensor | PackedSequence, hx: Hidden | None = None) -> Any:
        """As `torch.nn`'s layer of the same name, whose arguments and results these are."""
        assert isinstance(self, nn.RNNBase)
        found = unfolded(self, input, hx)
        return super().forward(input, hx) if found is None else found  # type: ignore[misc]  # of the class that this is mixed into


class RNN(_Unfolded, nn.RNN):
    """`torch.nn.RNN`, unfolded by the engine.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.RNN`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


class GRU(_Unfolded, nn.GRU):
    """`torch.nn.GRU`, unfolded by the engine.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.GRU`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


class LSTM(_Unfolded, nn.LSTM):
    """`torch.nn.LSTM`, unfolded by the engine, with ``proj_size`` too.

    Arguments, attributes, parameters, inputs, outputs and errors are those of `torch.nn.LSTM`. On
    devices and for dtypes that the engine does not have it is PyTorch's own layer.
    """

    __module__ = "bptt.nn"  # where users, and pickles, find it


# One step leaves nothing to unfold, and these are cells as they are: `bptt.unfold` takes them.
RNNCell = nn.RNNCell
GRUCell = nn.GRUCell
LSTMCell = nn.LSTMCell
