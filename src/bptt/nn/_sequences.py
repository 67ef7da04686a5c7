"""What a layer is given and gives back: padded, packed or alone, batch first or time first.

`bptt.unfold` knows one layout, [time, lane, feature] with lengths. `Sequences` brings an input into
it and takes outputs, states and resets between it and the caller's layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

Reverse = Callable[[Tensor], Tensor]


@dataclass(slots=True, eq=False)
class Sequences:
    """One call's input.

    Attributes:
        inputs: [time, lane, ...]; zero past a lane's length.
        lengths: int64 [lane] on the CPU, or None where all are as long as ``inputs``.
        packed: the caller's packed sequence, if it was one.
        places: where its elements lie in [time · lane], or None where they fill it.
        batched: False where the caller left the lanes out.
        batch_first: whether the caller has the lanes before time.
    """

    inputs: Tensor
    lengths: Tensor | None
    packed: PackedSequence | None
    places: Tensor | None
    batched: bool
    batch_first: bool

    def output(self, outputs: Tensor) -> Tensor | PackedSequence:
        """Outputs [time, lane, ...] in the caller's layout."""
        if self.packed is None:
            return self.over_time(outputs, 0)
        _, batch_sizes, order, back = self.packed
        return PackedSequence(pack(outputs, self), batch_sizes, order, back)

    def over_time(self, values: Tensor, dim: int) -> Tensor:
        """Values with time and lanes in ``dim`` and ``dim + 1``, in the caller's layout, padded."""
        if self.packed is not None:
            values = _ordered(values, self.packed.unsorted_indices, dim + 1)
        if not self.batched:
            return values.squeeze(dim + 1)
        return values.transpose(dim, dim + 1) if self.batch_first else values

    def over_time_in(self, values: Tensor) -> Tensor:
        """The inverse of `over_time`, time and lanes first."""
        if not self.batched:
            return values.unsqueeze(1)
        if self.batch_first:
            values = values.transpose(0, 1)
        return values if self.packed is None else _ordered(values, self.packed.sorted_indices, 1)

    def state_in(self, leaf: Tensor) -> Tensor:
        """A caller's state [layer, lane, n], or [layer, n] of a lane alone, as [layer, lane, n]."""
        if not self.batched:
            return leaf.unsqueeze(1)
        return leaf if self.packed is None else _ordered(leaf, self.packed.sorted_indices, 1)

    def state_out(self, leaf: Tensor) -> Tensor:
        """The inverse of `state_in`."""
        if not self.batched:
            return leaf.squeeze(1)
        return leaf if self.packed is None else _ordered(leaf, self.packed.unsorted_indices, 1)

    def reverse(self) -> Reverse:
        """What turns each lane of [time, lane, ...] around within its own length.

        It is its own inverse; what lies past a length stays where it is.
        """
        if self.lengths is None:
            return lambda values: values.flip(0)
        steps, lanes = self.inputs.shape[:2]
        time = torch.arange(steps, device="cpu").unsqueeze(1)  # as lengths are
        source = torch.where(time < self.lengths, self.lengths - 1 - time, time)
        index = (
            (source * lanes + torch.arange(lanes, device="cpu")).flatten().to(self.inputs.device)
        )

        def turned(values: Tensor) -> Tensor:
            return values.flatten(0, 1).index_select(0, index).view(values.shape)

        return turned


def _ordered(values: Tensor, order: Tensor | None, dim: int) -> Tensor:
    return values if order is None else values.index_select(dim, order)


def enter(input: Tensor | PackedSequence, batch_first: bool, dims: int = 3) -> Sequences:
    """A caller's input as `Sequences`.

    Args:
        input: [time, lane, ...], [lane, time, ...] if ``batch_first``, without lanes, or packed.
        batch_first: the layout of a batched input.
        dims: of a batched input; one less has the lanes left out.
    """
    if isinstance(input, PackedSequence):
        return _unpacked(input)
    if input.dim() == dims - 1:
        return Sequences(input.unsqueeze(1), None, None, None, False, batch_first)
    inputs = input.transpose(0, 1) if batch_first else input
    return Sequences(inputs, None, None, None, True, batch_first)


def _unpacked(packed: PackedSequence) -> Sequences:
    """Packed sequences are always time first: the layer's ``batch_first`` says nothing of them."""
    data, batch_sizes = packed.data, packed.batch_sizes
    steps, lanes = len(batch_sizes), int(batch_sizes[0])
    if int(batch_sizes[-1]) == lanes:  # all of one length: packed is what padded would be
        inputs = data.view(steps, lanes, *data.shape[1:])
        return Sequences(inputs, None, packed, None, True, False)
    present = torch.arange(lanes, device=batch_sizes.device) < batch_sizes.unsqueeze(1)
    places = present.flatten().nonzero().squeeze(1).to(data.device)
    inputs = _spread(data, places, steps, lanes)
    return Sequences(inputs, present.sum(0), packed, places, True, False)


def _spread(data: Tensor, places: Tensor, steps: int, lanes: int) -> Tensor:
    """Packed elements in their places among [time, lane, ...], zero elsewhere.

    PyTorch's own ``pad_packed_sequence`` does it step by step, and its gradient clears and adds the
    whole once for every step.
    """
    blank = data.new_zeros((steps * lanes, *data.shape[1:]))
    return blank.index_copy(0, places, data).view(steps, lanes, *data.shape[1:])


def pack(values: Tensor, sequences: Sequences) -> Tensor:
    """The data of a packed sequence, from [time, lane, ...]."""
    flat = values.flatten(0, 1)
    return flat if sequences.places is None else flat.index_select(0, sequences.places)


def unpack(data: Tensor, sequences: Sequences) -> Tensor:
    """The inverse of `pack`."""
    steps, lanes = sequences.inputs.shape[:2]
    if sequences.places is None:
        return data.view(steps, lanes, *data.shape[1:])
    return _spread(data, sequences.places, steps, lanes)
