"""From sequences to lanes: which piece of which sequence runs where.

Nothing is dropped: every step of every sequence lies on exactly one lane, once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.streams._chunk import TensorBatch, no_flags
from bptt.streams._sequences import Sequence


@dataclass(frozen=True)
class Piece:
    """The steps ``start`` to ``stop - 1`` of ``sequence``, on ``lane`` from its step ``at`` on."""

    sequence: int
    start: int
    stop: int
    lane: int
    at: int

    @property
    def steps(self) -> int:
        """How many steps the piece has."""
        return self.stop - self.start


def cut(length: int, lanes: int) -> list[Piece]:
    """One series as ``lanes`` contiguous parts whose lengths differ by one step at most."""
    short, longer = divmod(length, lanes)
    bounds = [lane * short + min(lane, longer) for lane in range(lanes + 1)]
    return [Piece(0, bounds[i], bounds[i + 1], i, 0) for i in range(lanes)]


def fill(order: Iterable[int], lengths: Ordered[int], lanes: int) -> list[Piece]:
    """Whole sequences on lanes: each goes to the lane that ends first."""
    free = [(0, lane) for lane in range(lanes)]
    pieces = []
    for index in order:
        end, lane = heapq.heappop(free)
        pieces.append(Piece(index, 0, lengths[index], lane, end))
        heapq.heappush(free, (end + lengths[index], lane))
    return pieces


def lay(sequences: Ordered[Sequence], pieces: list[Piece], lanes: int, burn_in: int) -> TensorBatch:
    """The batch that ``pieces`` make: lanes padded to the longest, resets on every sequence's
    first step but each lane's first, ``burn_in`` steps uncounted after each start or reset."""
    ends = [0] * lanes
    for piece in pieces:
        ends[piece.lane] = max(ends[piece.lane], piece.at + piece.steps)
    length = max(ends)
    first = sequences[0]
    if lanes == 1 and len(pieces) == 1:
        # One series on one lane needs no copy.
        whole = sequences[pieces[0].sequence].part(pieces[0].start, pieces[0].stop)
        inputs, targets, mask = (
            part.unsqueeze(1) for part in (whole.inputs, whole.targets, whole.mask)
        )
        mask = mask.clone() if burn_in else mask
    else:
        inputs = first.inputs.new_zeros(length, lanes, *first.inputs.shape[1:])
        targets = first.targets.new_zeros(length, lanes, *first.targets.shape[1:])
        mask = no_flags(length, lanes, inputs)
        for piece in pieces:
            source = sequences[piece.sequence].part(piece.start, piece.stop)
            at = slice(piece.at, piece.at + piece.steps)
            inputs[at, piece.lane] = source.inputs
            targets[at, piece.lane] = source.targets
            mask[at, piece.lane] = source.mask
    reset = no_flags(length, lanes, inputs)
    for piece in pieces:
        reset[piece.at, piece.lane] = piece.at > 0
        mask[piece.at : min(piece.at + burn_in, piece.at + piece.steps), piece.lane] = False
    ragged = min(ends) < length
    return TensorBatch(
        inputs, targets, mask, reset, torch.tensor(ends, device=inputs.device) if ragged else None
    )


def collect(outputs: Tensor, pieces: list[Piece], found: dict[int, list[Tensor]]) -> None:
    """Sort ``outputs`` [time, lane, ...] of a batch back to the sequences they belong to."""
    for piece in pieces:
        at = slice(piece.at, piece.at + piece.steps)
        found.setdefault(piece.sequence, []).append(outputs[at, piece.lane])
