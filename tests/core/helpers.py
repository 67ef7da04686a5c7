"""What the core's tests share: a zoo of cells, small networks and streams, and comparisons."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor, nn

import bptt

F64 = torch.float64
Weights = dict[str, Tensor]

BACKEND = os.environ.get("BPTT_CORE_BACKEND", "eager")
"""The executor under test: the core is proven on the oracle; others can be put in its place."""

Network = partial(bptt.Network, backend=BACKEND)
unfold = partial(bptt.unfold, backend=BACKEND)

examples = settings(max_examples=40, deadline=None, derandomize=True)
"""How the property tests draw: as many as are quick, the same ones every time."""


class Nested(nn.Module):
    """A state nested two deep, with leaves of different sizes and an output of its own."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.enter = nn.Linear(inputs + hidden, hidden, dtype=F64)
        self.slow = nn.Linear(hidden, 2, dtype=F64)

    def initial_state(self, batch: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return (
            torch.zeros(batch, 2, dtype=F64),
            (torch.full((batch, self.hidden), 0.3, dtype=F64), torch.zeros(batch, 1, 2, dtype=F64)),
        )

    def output(self, state: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        slow, (fast, trace) = state
        return fast * slow.sum(dim=1, keepdim=True) + trace.sum(dim=(1, 2))[:, None]

    def forward(self, input: Tensor, state: tuple[Tensor, tuple[Tensor, Tensor]]) -> Any:
        slow, (fast, trace) = state
        new = torch.tanh(self.enter(torch.cat([input, fast], dim=1)))
        slow = 0.5 * slow + torch.sin(self.slow(new))
        return slow, (new, 0.5 * trace + slow[:, None])


class OwnStart(nn.Module):
    """A cell whose own initial state depends on its parameters."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.step = nn.RNNCell(inputs, hidden, dtype=F64)

    def initial_state(self, batch: int) -> Tensor:
        return torch.sin(self.step.bias_hh + 1.0).expand(batch, -1)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.step(input, state)


CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "Elman": lambda i, h: bptt.cells.Elman(i, h, dtype=F64),
    "Elman relu": lambda i, h: bptt.cells.Elman(i, h, nonlinearity="relu", dtype=F64),
    "Elman without bias": lambda i, h: bptt.cells.Elman(i, h, bias=False, dtype=F64),
    "Leaky": lambda i, h: bptt.cells.Leaky(i, h, rate=0.3, dtype=F64),
    "Leaky per unit": lambda i, h: bptt.cells.Leaky(
        i, h, time_constant=torch.linspace(1.0, 5.0, h), dtype=F64
    ),
    "GRU": lambda i, h: bptt.cells.GRU(i, h, dtype=F64),
    "LSTM": lambda i, h: bptt.cells.LSTM(i, h, dtype=F64),
    "StateSpace": lambda i, h: bptt.cells.StateSpace(i, h, dtype=F64),
    "Stack": lambda i, h: bptt.Stack(bptt.cells.LSTM(i, 2, dtype=F64), nn.GRUCell(2, h, dtype=F64)),
    "RNNCell": lambda i, h: nn.RNNCell(i, h, dtype=F64),
    "GRUCell": lambda i, h: nn.GRUCell(i, h, dtype=F64),
    "LSTMCell": lambda i, h: nn.LSTMCell(i, h, dtype=F64),
    "Nested": Nested,
    "OwnStart": OwnStart,
}


def network(
    kind: str = "Elman", inputs: int = 2, hidden: int = 3, outputs: int = 1, **options: Any
) -> bptt.Network:
    """A small float64 network with a linear readout, the same for the same arguments."""
    torch.manual_seed(7)
    cell = CELLS[kind](inputs, hidden)
    for weight in cell.parameters():  # weights large enough to have gradients worth comparing
        nn.init.uniform_(weight, -0.9, 0.9)
    return Network(cell, nn.Linear(hidden, outputs, dtype=F64), **options)


def data(*shape: int, seed: int = 1) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def series(steps: int, lanes: int = 2, inputs: int = 2, outputs: int = 1) -> bptt.Stream:
    """A stream [steps, lanes, features]."""
    return bptt.Stream(data(steps, lanes, inputs), data(steps, lanes, outputs, seed=2))


def sequences(
    lengths: Iterable[int], inputs: int = 2, outputs: int = 1
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Inputs, targets and masks of unequal lengths; every fourth target is masked and NaN."""
    sizes = list(lengths)
    targets = [data(n, outputs, seed=20 + j) for j, n in enumerate(sizes)]
    masks = [torch.arange(n) % 4 != 2 for n in sizes]
    for target, mask in zip(targets, masks, strict=True):
        target[~mask] = float("nan")
    values = [data(n, inputs, seed=50 + j) for j, n in enumerate(sizes)]
    return values, targets, masks


def ragged(
    lengths: Iterable[int], inputs: int = 2, outputs: int = 1, **options: Any
) -> bptt.Stream:
    """A stream of `sequences`."""
    values, targets, masks = sequences(lengths, inputs, outputs)
    return bptt.Stream(values, targets, mask=masks, **options)


def only(stream: bptt.Stream) -> Any:
    """The stream's single batch."""
    (batch,) = stream.in_order()
    return batch


def weights(net: nn.Module) -> Weights:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def gradients(net: nn.Module) -> Weights:
    """A copy of all gradients; zeros where there is none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


@dataclass(frozen=True)
class Step:
    """What one update of plain SGD left behind."""

    update: bptt.Update
    weights: Weights


def descend(
    method: bptt.GradientMethod,
    net: bptt.Network,
    stream: bptt.Stream,
    rate: float = 0.1,
    loss: Any = "mse",
    state: Any = None,
) -> Iterator[Step]:
    """One pass with plain SGD."""
    for update in method.updates(net, loss, stream, state):
        with torch.no_grad():
            for p in net.parameters():
                if p.grad is not None:
                    p -= rate * p.grad
        net.zero_grad()
        yield Step(update, weights(net))


def gradient_of(
    method: bptt.GradientMethod,
    net: bptt.Network,
    stream: bptt.Stream,
    loss: Any = "mse",
    state: Any = None,
) -> tuple[Weights, list[bptt.Update]]:
    """The gradient of a whole pass with the weights held fixed, each update weighted by its
    count, so that the passes of different windows can be compared."""
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    updates = []
    net.zero_grad()
    for update in method.updates(net, loss, stream, state):
        for name, gradient in gradients(net).items():
            total[name] += update.count * gradient
        net.zero_grad()
        updates.append(update)
    return total, updates


def assert_same(one: Any, other: Any, tolerance: float = 1e-12) -> None:
    """Equal to rounding, relative to the largest element."""
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def copied(net: bptt.Network) -> bptt.Network:
    """A network of its own with the same weights."""
    return deepcopy(net)


def budget(net: bptt.Network, stream: bptt.Stream, share: float = 0.6) -> int:
    """Bytes that do not hold the whole."""
    return int(bptt.Full().plan(net, stream).peak * share)
