"""From sequences to lanes: which piece of which sequence runs where.

Nothing is dropped: every step of every sequence lies on exactly one lane, once.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ordered
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.streams._chunk import Chunk, no_flags
from bptt.streams._sequences import Sequence


class Piece(NamedTuple):
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

    @property
    def end(self) -> int:
        """The lane's step after its last."""
        return self.at + self.stop - self.start


def cut(length: int, lanes: int) -> list[Piece]:
    """One series as ``lanes`` contiguous parts whose lengths differ by one step at most."""
    stretches = [part_of(length, lane, lanes) for lane in range(lanes)]
    return [Piece(0, part.start, part.stop, lane, 0) for lane, part in enumerate(stretches)]


def part_of(count: int, rank: int, world: int) -> range:
    """Part ``rank`` of ``count`` things shared out among ``world``, in order."""
    short, longer = divmod(count, world)
    start = rank * short + min(rank, longer)
    return range(start, start + short + (rank < longer))


def fill(order: Iterable[int], lengths: Ordered[int], lanes: int) -> list[Piece]:
    """Whole sequences on lanes: each goes to the lane that ends first."""
    free = [(0, lane) for lane in range(lanes)]
    pieces = []
    for index in order:
        end, lane = heapq.heappop(free)
        pieces.append(Piece(index, 0, lengths[index], lane, end))
        heapq.heappush(free, (end + lengths[index], lane))
    return pieces


class Layout:
    """The lanes of a batch, and the pieces that run on each, one after the other.

    Args:
        pieces: on every lane in the order of its steps, without gaps.
        lanes: how many there are.
        burn_in: how many steps after each start or reset are uncounted.
        length: the steps of the batch, if other lanes of it, elsewhere, may be longer.

    Attributes:
        pieces: as given.
        lanes: as given.
        ends: the steps of every lane.
        length: as given, or the steps of the longest lane.
    """

    def __init__(
        self, pieces: list[Piece], lanes: int, burn_in: int, length: int | None = None
    ) -> None:
        self.pieces = pieces
        self.lanes = lanes
        self._burn_in = burn_in
        self._by_lane: list[list[Piece]] = [[] for _ in range(lanes)]
        for piece in pieces:
            self._by_lane[piece.lane].append(piece)
        self.ends = [lane[-1].end if lane else 0 for lane in self._by_lane]
        self.length = max(self.ends) if length is None else length

    def part(self, rank: int, world: int) -> Layout:
        """Part ``rank`` of ``world`` parts of the lanes, whose sizes differ by one at most; where
        there is none for it, one lane without steps."""
        own = part_of(self.lanes, rank, world)
        pieces = [
            piece._replace(lane=piece.lane - own.start)
            for piece in self.pieces
            if piece.lane in own
        ]
        return Layout(pieces, max(len(own), 1), self._burn_in, self.length)

    def between(self, start: int, stop: int) -> list[Piece]:
        """The pieces that have steps among ``start`` to ``stop - 1``, whole."""
        found = []
        for lane in self._by_lane:
            first = max(bisect_right(lane, start, key=lambda piece: piece.at) - 1, 0)
            for index in range(first, len(lane)):
                if lane[index].at >= stop:
                    break
                if lane[index].end > start:
                    found.append(lane[index])
        return found

    def mark(self, mask: Tensor, reset: Tensor, start: int, pieces: list[Piece]) -> None:
        """In flags of the steps from ``start`` on: reset on the first step of every piece but the
        lane's first; the steps after each start or reset uncounted."""
        for piece in pieces:
            if piece.at > 0 and piece.at >= start:
                reset[piece.at - start, piece.lane] = True
            settled = min(piece.at + self._burn_in, piece.end)
            if settled > start:
                mask[max(piece.at - start, 0) : settled - start, piece.lane] = False

    def lengths(self, start: int, stop: int, device: torch.device) -> Tensor | None:
        """How many of the steps ``start`` to ``stop - 1`` each lane has; None: all have all."""
        if min(self.ends) >= stop:
            return None
        within = [min(max(end - start, 0), stop - start) for end in self.ends]
        return torch.tensor(within, device=device)


Read = Callable[[list[tuple[int, int, int]]], list[Sequence]]
"""From stretches (sequence, start, stop) to their pairs."""


def assemble(read: Read, like: Sequence, layout: Layout, start: int, stop: int) -> Chunk:
    """The steps ``start`` to ``stop - 1`` of a batch: lanes side by side, padded with zeros."""
    pieces = layout.between(start, stop)
    inside = [_clip(piece, start, stop) for piece in pieces]
    found = read([piece[:3] for piece in inside])
    steps = stop - start
    if layout.lanes == 1 and len(found) == 1 and len(found[0]) == steps:
        # One sequence on one lane needs no copy, but for flags that are about to change.
        only = found[0]
        inputs, targets = only.inputs.unsqueeze(1), only.targets.unsqueeze(1)
        mask = only.mask.unsqueeze(1).clone()
    else:
        filled = sum(piece.steps for piece in inside) == steps * layout.lanes
        new = Tensor.new_empty if filled else Tensor.new_zeros
        inputs = new(like.inputs, (steps, layout.lanes, *like.inputs.shape[1:]))
        targets = new(like.targets, (steps, layout.lanes, *like.targets.shape[1:]))
        mask = no_flags(steps, layout.lanes, inputs)
        for piece, source in zip(inside, found, strict=True):
            at = slice(piece.at - start, piece.end - start)
            inputs[at, piece.lane] = source.inputs
            targets[at, piece.lane] = source.targets
            mask[at, piece.lane] = source.mask
    reset = no_flags(steps, layout.lanes, inputs)
    layout.mark(mask, reset, start, pieces)
    return Chunk(inputs, targets, mask, reset, layout.lengths(start, stop, inputs.device))


def _clip(piece: Piece, start: int, stop: int) -> Piece:
    """The steps of a piece that lie among ``start`` to ``stop - 1``."""
    before = max(start - piece.at, 0)
    after = max(piece.end - stop, 0)
    return Piece(
        piece.sequence, piece.start + before, piece.stop - after, piece.lane, piece.at + before
    )


def collect(outputs: Tensor, pieces: list[Piece], found: dict[int, list[Tensor]]) -> None:
    """Sort ``outputs`` [time, lane, ...] of a batch back to the sequences they belong to."""
    for piece in pieces:
        at = slice(piece.at, piece.end)
        found.setdefault(piece.sequence, []).append(outputs[at, piece.lane])
