"""What breaks where a test wants it to: a cell, an optimizer, and data with marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import bptt

MARK = 7.0
"""An input at which the cell below breaks."""


class Fragile(nn.Module):
    """An Elman cell whose state becomes ``poison`` where its input is `MARK`, while it is armed."""

    def __init__(self, poison: float = math.nan) -> None:
        super().__init__()
        self.inner = bptt.cells.Elman(1, 4)
        self.hidden_size, self.input_size = 4, 1
        self.poison, self.armed = poison, True

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        found = self.inner(input, state)
        marked = (input == MARK) if self.armed else torch.zeros_like(input, dtype=torch.bool)
        return torch.where(marked, torch.full_like(found, self.poison), found)


def network(
    make: Callable[[], nn.Module] = lambda: bptt.cells.Elman(1, 4), **options: Any
) -> bptt.Network:
    torch.manual_seed(0)
    return bptt.Network(make(), nn.Linear(4, 1), backend="eager", **options)


def data(*marks: tuple[int, int], steps: int = 40, lanes: int = 3) -> bptt.Stream:
    """Waves on lanes, with marks at (step, lane)."""
    time = torch.arange(steps, dtype=torch.float32)[:, None] + 5 * torch.arange(lanes)
    inputs = torch.sin(0.4 * time)[..., None]
    targets = inputs.roll(-1, 0).clone()
    for step, lane in marks:
        inputs[step, lane] = MARK
    return bptt.Stream(inputs, targets)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def fit(net: bptt.Network, stream: bptt.Stream, **options: Any) -> bptt.History:
    options.setdefault("method", bptt.Truncated(6, 3))
    options.setdefault("optimizer", torch.optim.SGD(net.parameters(), 0.05, momentum=0.5))
    options.setdefault("epochs", 1)
    return bptt.fit(net, stream, progress=False, **options)


def keep(held: list[Tensor]) -> Callable[[bptt.Progress], None]:
    def callback(progress: bptt.Progress) -> None:
        held.append(weights(progress.network))

    callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
    return callback


METHODS: dict[str, Callable[[], Any]] = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(segment=7),
    "carried": lambda: bptt.Truncated(6, 3),
    "recomputed": lambda: bptt.Truncated(6, 3, context="recomputed"),
    "stored": lambda: bptt.Truncated(6, 3, history="stored"),
}
ONLINE: dict[str, Callable[[], Any]] = {
    "rtrl": lambda: bptt.RTRL(stride=3),
    "uoro": lambda: bptt.UORO(stride=3),
}


class Exploding(torch.optim.SGD):
    """Writes a NaN into one weight at its third step, of finite gradients."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no result, as loops need none
        super().step(closure)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][1].view(-1)[0] = self.poison
