"""The network's run over the data, as one flat list of steps: what every diagnosis starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.errors import DataError
from bptt.gradients._window import advance
from bptt.network import Network, place_of
from bptt.state import State, lane_mask, leaves, map_state
from bptt.streams import Chunk, Stream, on_device

AT_ONCE = 1024
"""Steps unfolded together."""


@dataclass(frozen=True)
class Trajectory:
    """Steps laid one after the other, lane by lane; step i follows i − 1 within its sequence.

    Attributes:
        inputs: [step, ...].
        targets: [step, ...]; undefined where ``mask`` is false.
        mask: bool [step]: the steps whose loss counts.
        entering: the state that entered each step, resets applied; leaves [step, ...].
        history: int64 [step]: how many steps of its sequence lie before it.
        fresh: bool [step]: the network's initial state entered it.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    entering: State
    history: Tensor
    fresh: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def width(self) -> int:
        """Numbers in the state of one lane."""
        return sum(leaf[0].numel() for leaf in leaves(self.entering))

    def counted(self) -> Tensor:
        """int64: the steps whose loss counts, in order."""
        return self.mask.nonzero()[:, 0]

    def runs(self) -> list[tuple[int, int]]:
        """First step and length of every sequence, longest first."""
        first = (self.history == 0).nonzero()[:, 0].tolist()
        ends = [*first[1:], len(self)]
        found = [(low, high - low) for low, high in zip(first, ends, strict=True)]
        return sorted(found, key=lambda run: -run[1])


@dataclass(frozen=True)
class Portion:
    """Some lanes of a batch, from its first step on.

    Attributes:
        chunk: their steps.
        state: the state that enters, or None at the network's initial state.
    """

    chunk: Chunk
    state: State | None


def portions(network: Network, stream: Stream, steps: int) -> list[Portion]:
    """The first ``steps`` steps of ``stream``, those of all lanes counted together.

    Where there are more, lanes are left out before their steps are shortened. A stream that
    `Stream.split` cut off is entered from what precedes it.

    Raises:
        DataError: none of the steps counts.
    """
    start = _entering(network, stream) if stream.carries else None
    found: list[Portion] = []
    remaining = steps
    for batch in on_device(stream, stream.in_order(), place_of(network)):
        length = min(batch.length, remaining)
        kept = min(batch.lanes, max(1, remaining // length))
        place = torch.arange(kept) * batch.lanes // kept  # evenly spread
        chunk = _chosen(batch.chunk(0, length), place)
        state = None if start is None else map_state(lambda s, at=place: s[at], start)
        found.append(Portion(chunk, state))
        remaining -= length * kept
        if remaining <= 0:
            break
    if not any(bool(portion.chunk.mask.any()) for portion in found):
        raise DataError(
            f"none of the first {steps} steps counts (mask, horizon, burn_in): there is no loss to "
            "diagnose. Look at more of them with steps=, or give targets in them."
        )
    return found


def _entering(network: Network, stream: Stream) -> State | None:
    """The state after what precedes the stream in time."""
    if stream.preceding is None:
        return None
    state = _entering(network, stream.preceding)
    past = stream.preceding
    for batch in on_device(past, past.in_order(), place_of(network)):
        for low in range(0, batch.length, AT_ONCE):
            state = advance(network, batch.chunk(low, low + AT_ONCE), state)
    return state


def _chosen(chunk: Chunk, lanes: Tensor) -> Chunk:
    if len(lanes) == chunk.inputs.shape[1]:
        return chunk
    at = lanes.to(chunk.inputs.device)
    lengths = None if chunk.lengths is None else chunk.lengths[at]
    return Chunk(
        chunk.inputs[:, at], chunk.targets[:, at], chunk.mask[:, at], chunk.reset[:, at], lengths
    )


@torch.no_grad()
def record(network: Network, given: list[Portion]) -> Trajectory:
    """Run ``network`` over the data and lay its steps one after the other."""
    parts = [_recorded(network, portion) for portion in given]
    if len(parts) == 1:
        return parts[0]
    return Trajectory(
        torch.cat([p.inputs for p in parts]),
        torch.cat([p.targets for p in parts]),
        torch.cat([p.mask for p in parts]),
        map_state(lambda *tensors: torch.cat(tensors), *(p.entering for p in parts)),
        torch.cat([p.history for p in parts]),
        torch.cat([p.fresh for p in parts]),
    )


def _recorded(network: Network, portion: Portion) -> Trajectory:
    chunk = portion.chunk
    steps, lanes = chunk.mask.shape
    initial = network.initial_state(lanes, like=chunk.inputs)
    before = initial if portion.state is None else portion.state
    _, _, after = network.unfold_states(
        chunk.inputs, before, reset=chunk.any_reset, lengths=chunk.lengths, initial=initial
    )
    flags = chunk.reset

    def entered(first: Tensor, later: Tensor, again: Tensor) -> Tensor:
        rows = torch.cat([first[None], later[:-1]])
        return torch.where(lane_mask(flags, rows), again, rows)

    entering = map_state(entered, before, after, initial)
    fresh = flags.clone()
    fresh[0] |= portion.state is None
    ends = torch.full((lanes,), steps) if chunk.lengths is None else chunk.lengths
    place = torch.arange(steps, device=flags.device)[:, None]
    active = (place < ends.to(flags.device)).t()

    def flat(rows: Tensor) -> Tensor:
        """Lane after lane, padding left out."""
        return rows.transpose(0, 1)[active]

    return Trajectory(
        flat(chunk.inputs),
        flat(chunk.targets),
        flat(chunk.mask),
        map_state(flat, entering),
        flat(_passed(flags)),
        flat(fresh),
    )


def _passed(reset: Tensor) -> Tensor:
    """How many steps of its sequence lie before each step [time, lane]."""
    place = torch.arange(len(reset), device=reset.device)[:, None].expand_as(reset)
    return place - torch.where(reset, place, 0).cummax(dim=0).values
