"""The gradient of one window: unfold, read out, count, go back.

Everything that the gradient methods share. A window's context is detached; where it is None the
window begins at the network's initial state, and a learned one receives gradient there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.losses import StepLoss, cost
from bptt.network import Network
from bptt.segments import undrawn
from bptt.state import State, leaves, rebuild
from bptt.streams import Chunk


@dataclass(frozen=True)
class Window:
    """The counted part of a window.

    Attributes:
        targets: [time, lane, ...] of the counted stretch, the last steps of the window.
        mask: bool [time, lane], of the same steps.
        count: how many steps and lanes the mask counts.
        like: an empty tensor of the inputs' dtype and device.
        copies: by how much the gradient of the cell's parameters is divided.
    """

    targets: Tensor
    mask: Tensor
    count: int
    like: Tensor
    copies: int = 1


def counted(chunk: Chunk, first: int, copies: int = 1) -> Window:
    """The window that counts the steps of ``chunk`` from ``first`` on."""
    mask = chunk.mask[first:]
    like = chunk.inputs.new_empty(0)
    return Window(chunk.targets[first:], mask, int(mask.sum()), like, copies)


@dataclass(frozen=True)
class Passage:
    """What a window leaves behind, detached: the state at its end, and the states after some or
    all of its steps where the method asked for them."""

    end: State
    states: State | None = None


Unfolding = Callable[[State], tuple[Tensor, Passage]]
"""From the initial state to a window's counted outputs [time, lane, ...] and what it leaves. The
same every time it is called, so that a closure can evaluate the window again."""


@torch.no_grad()
def advance(network: Network, chunk: Chunk, context: State | None) -> State:
    """The state after a chunk, without a gradient."""
    _, last = network.unfold(chunk.inputs, context, reset=chunk.any_reset, lengths=chunk.lengths)
    return last


def differentiate(
    network: Network, loss: StepLoss, window: Window, unfolding: Unfolding
) -> tuple[Tensor, Passage]:
    """Add the gradient of a window's mean loss to ``.grad``; give the loss and the passage. With
    nothing to count, the loss is 0 and nothing is added."""
    initial = network.initial_state(window.mask.shape[1], like=window.like)
    if not window.count:
        with torch.no_grad():
            return window.like.new_zeros(()), unfolding(initial)[1]
    if window.copies != 1:
        return _averaged(network, loss, window, unfolding, initial)
    outputs, passage = unfolding(initial)
    mean = cost(loss, network.read, outputs, window.targets, window.mask) / window.count
    _backward(mean)
    return mean.detach(), passage


def _averaged(
    network: Network, loss: StepLoss, window: Window, unfolding: Unfolding, initial: State
) -> tuple[Tensor, Passage]:
    """As above, with the cell's share of the gradient divided by the number of copies.

    The backward pass goes in three parts, so that of a parameter that the cell shares with the
    readout or the initial state only the cell's share is divided.
    """
    sources = leaves(initial)
    entries = [leaf.detach().requires_grad_(leaf.requires_grad) for leaf in sources]
    outputs, passage = unfolding(rebuild(initial, entries))
    seam = outputs.detach().requires_grad_(outputs.requires_grad)
    mean = cost(loss, network.read, seam, window.targets, window.mask) / window.count
    _backward(mean)
    if seam.grad is not None:
        learned = [i for i, entry in enumerate(entries) if entry.requires_grad]
        given = [entries[i] for i in learned]
        own = [leaf for leaf in beneath(outputs) if all(leaf is not entry for entry in given)]
        found = torch.autograd.grad(outputs, own + given, seam.grad, allow_unused=True)
        for parameter, gradient in zip(own, found, strict=False):
            if gradient is not None:
                add_gradient(parameter, gradient / window.copies)
        send([sources[i] for i in learned], found[len(own) :])
    return mean.detach(), passage


def beneath(outputs: Tensor) -> list[Tensor]:
    """The tensors that a backward pass from ``outputs`` would give a gradient: the cell's
    parameters, and whatever else it captured."""
    found: list[Tensor] = []
    waiting, seen = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting.extend(parent for parent, _ in node.next_functions)
    return found


def _backward(mean: Tensor) -> None:
    """Go back, unless nothing in this window can be trained (a learned initial state alone, and
    the window does not begin there)."""
    if mean.requires_grad:
        mean.backward()  # type: ignore[no-untyped-call]  # untyped in torch


def send(tensors: list[Tensor], gradients: tuple[Tensor | None, ...]) -> None:
    """Send gradients on, from tensors to the parameters that they were made of."""
    pairs = [(t, g) for t, g in zip(tensors, gradients, strict=True) if g is not None]
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Accumulate as ``backward`` does."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def again(
    network: Network, loss: StepLoss, window: Window, unfolding: Unfolding
) -> Callable[[], Tensor]:
    """The closure of an update: the same window, with the present weights."""

    def closure() -> Tensor:
        network.zero_grad()
        with torch.enable_grad():
            return differentiate(network, loss, window, unfolding)[0]

    return closure


@dataclass(frozen=True)
class Inspection:
    """What a window went through.

    Attributes:
        norms: float64 [time, lane], the Euclidean norm of the whole state after each step.
        losses: float64 [time, lane], zero where nothing counts.
    """

    norms: Tensor
    losses: Tensor


INSPECTED_AT_ONCE = 1024
"""Bounds the states that an inspection holds, however long the window is."""


@torch.no_grad()
def inspect(
    network: Network,
    loss: StepLoss,
    part: Callable[[int, int], Chunk],
    steps: int,
    first: int,
    context: State | None,
) -> Inspection:
    """Run over a window of ``steps`` steps, given by its parts, that counts from ``first`` on."""
    norms, losses = [], []
    with undrawn():
        for low in range(0, steps, INSPECTED_AT_ONCE):
            chunk = part(low, min(low + INSPECTED_AT_ONCE, steps))
            outputs, context, states = network.unfold_states(
                chunk.inputs, context, reset=chunk.any_reset, lengths=chunk.lengths
            )
            squares = [s.double().reshape(*s.shape[:2], -1).square().sum(2) for s in leaves(states)]
            norms.append(torch.stack(squares).sum(0).sqrt())
            mask = chunk.mask.clone()
            mask[: max(first - low, 0)] = False
            values = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
            if bool(mask.any()):
                prediction = network.read(outputs[mask].unsqueeze(1))
                values[mask] = loss(prediction, chunk.targets[mask].unsqueeze(1))[:, 0].double()
            losses.append(values)
    return Inspection(torch.cat(norms), torch.cat(losses))
