"""Losses and predictions without a gradient, with the state carried as in training.

A stream that `Stream.split` cut off is entered by a fresh forward pass over what precedes it in
time, with the weights that are evaluated; any other starts at the given or the initial state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.losses import Loss, cost, step_loss
from bptt.network import Network, evaluating, place_of
from bptt.state import State, map_state
from bptt.streams import Chunk, Stream, on_device

STEPS_AT_ONCE = 1024
"""Bounds what an evaluation holds, however long the stream is."""


@dataclass(frozen=True)
class Evaluation:
    """The loss of a network on a stream.

    Attributes:
        loss: mean over all counted steps and lanes; NaN where nothing counts.
        count: how many those are.
        state: the state after the last step.
    """

    loss: float
    count: int
    state: State | None


@torch.no_grad()
def evaluate(
    network: Network, stream: Stream, loss: Loss = "mse", state: State | None = None
) -> Evaluation:
    """The mean loss of ``network`` over ``stream``, in evaluation mode.

    Args:
        network: is put back into the mode it was in.
        stream: if `Stream.split` cut it off, what precedes it is run over first.
        loss: as the gradient methods take it.
        state: starts the stream in place of what precedes it.
    """
    step = step_loss(loss)
    total, count = 0.0, 0

    def add(chunk: Chunk, outputs: Tensor) -> None:
        nonlocal total, count
        here = int(chunk.mask.sum())
        if here:
            read = network.read
            total += float(cost(step, read, outputs, chunk.targets, chunk.mask))
            count += here

    with evaluating(network):
        last = _run(network, stream, state, lambda batch, chunk, outputs: add(chunk, outputs))
    return Evaluation(total / count if count else float("nan"), count, last)


@torch.no_grad()
def predict(network: Network, stream: Stream, state: State | None = None) -> Tensor | list[Tensor]:
    """The predictions of ``network`` at every step of ``stream``, in evaluation mode.

    Args:
        network: is put back into the mode it was in.
        stream: if `Stream.split` cut it off, what precedes it is run over first.
        state: starts the stream in place of what precedes it.

    Returns:
        Predictions in the shape of the data: [time, ...] for one series, [time, lane, ...], or a
        list of [time, ...]. Row t was made after reading input t: with a horizon h it is the
        prediction of the target at t + h. They are on the network's device.
    """
    found: list[list[Tensor]] = []

    def keep(batch: int, chunk: Chunk, outputs: Tensor) -> None:
        if batch == len(found):
            found.append([])
        found[batch].append(network.read(outputs))

    with evaluating(network):
        _run(network, stream, state, keep)
    return stream.gather([torch.cat(parts) for parts in found])


def _run(
    network: Network,
    stream: Stream,
    state: State | None,
    visit: Callable[[int, Chunk, Tensor], None],
) -> State | None:
    """Unfold over the stream, chunk by chunk, and show each chunk's outputs to ``visit``."""
    if state is None and stream.preceding is not None and stream.carries:
        state = _run(network, stream.preceding, None, lambda batch, chunk, outputs: None)
    last = state
    place = place_of(network)
    if state is not None and place is not None:
        state = map_state(lambda leaf: leaf.to(place), state)
    for index, batch in enumerate(on_device(stream, stream.in_order(), place)):
        last = state if stream.carries else None
        for start in range(0, batch.length, STEPS_AT_ONCE):
            chunk = batch.chunk(start, start + STEPS_AT_ONCE)
            outputs, last = network.unfold(
                chunk.inputs, last, reset=chunk.any_reset, lengths=chunk.lengths
            )
            visit(index, chunk, outputs)
    return last
