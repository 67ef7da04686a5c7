"""What must work on every device, each as a function of the device that gives numbers.

The numbers are compared with those of the CPU; what cannot be compared with another device (random
numbers of the device's own) is compared within the scenario. Nothing but PyTorch, bptt and what
they need is imported.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt import cells

Device = torch.device
Scenario = Callable[[Device], Any]
SCENARIOS: dict[str, Scenario] = {}

FLOAT = torch.float64
"""So that devices agree to many digits."""

CPU = torch.device("cpu")
COMPILED = importlib.util.find_spec("bptt._core") is not None


def scenario(function: Scenario) -> Scenario:
    """Enter it under its name."""
    SCENARIOS[function.__name__] = function
    return function


def flat(value: Any) -> list[Tensor | float]:
    """All numbers of a nested value, on the CPU."""
    if isinstance(value, Tensor):
        return [value.detach().cpu()]
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in flat(one)]
    return [] if value is None else [float(value)]


def differ(one: Any, other: Any, tolerance: float) -> str | None:
    """Where two values differ; None if they agree."""
    left, right = flat(one), flat(other)
    if len(left) != len(right):
        return f"{len(left)} numbers and {len(right)}"
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        a, b = torch.as_tensor(a, dtype=FLOAT), torch.as_tensor(b, dtype=FLOAT)
        if a.shape != b.shape:
            return f"value {index}: {list(a.shape)} and {list(b.shape)}"
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"value {index}: differs by {float((a - b).abs().max()):.3g}"
    return None


def here(value: Any, device: Device) -> Any:
    """The value, whose tensors must all lie on the device."""
    for tensor in _tensors(value):
        assert tensor.device == device, f"a tensor is on {tensor.device}, not on {device}"
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


# -- parts -------------------------------------------------------------------------------------


class Own(nn.Module):
    """A cell of one's own, with an initial state that it makes itself and an output."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size = 3
        self.into = nn.Linear(3, 4)
        self.back = nn.Linear(4, 4)
        self.start = nn.Parameter(torch.full((4,), 0.1))
        self.register_buffer("scale", torch.full((4,), 0.5))

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return self.start.expand(batch, 4), self.scale.new_zeros(batch, 4)

    def output(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0] + state[1]

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        fast, slow = state
        new = torch.tanh(self.into(input) + self.back(fast))
        return new, slow + self.scale * (new - slow)


class Noisy(nn.Module):
    """A cell that draws random numbers of the device."""

    hidden_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return nn.functional.dropout(self.cell(input, state), 0.25, self.training)


CELLS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: nn.RNNCell(3, 4),
    "gru": lambda: nn.GRUCell(3, 4),
    "lstm": lambda: nn.LSTMCell(3, 4),
    "elman": lambda: cells.Elman(3, 4),
    "leaky": lambda: cells.Leaky(3, 4, time_constant=2.0),
    "state-space": lambda: cells.StateSpace(3, 4),
    "our gru": lambda: cells.GRU(3, 4),
    "our lstm": lambda: cells.LSTM(3, 4),
    "self-recurrent": lambda: cells.SelfRecurrent(3, 4),
    "stack": lambda: cells.Stack(cells.GRU(3, 4), cells.LSTM(4, 4)),
    "own": Own,
}


def drawn(make: Callable[[], nn.Module], device: Device, seed: int = 1) -> nn.Module:
    """A module with the same weights on every device."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    made = make().to(FLOAT).to(device)
    torch.set_rng_state(before)
    return made


def network(device: Device, cell: str = "our gru", **options: Any) -> bptt.Network:
    """A small network."""
    made = drawn(lambda: bptt.Network(CELLS[cell](), nn.Linear(4, 2), **options), device)
    assert isinstance(made, bptt.Network)
    return made


def numbers(*shape: int, seed: int = 7) -> Tensor:
    """Numbers of the CPU's, the same every time."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=FLOAT)


def series(steps: int = 23, **options: Any) -> bptt.Stream:
    """One series on the CPU."""
    return bptt.Stream(numbers(steps, 3), numbers(steps, 2, seed=8), **options)


def sequences(**options: Any) -> bptt.Stream:
    """Sequences of unequal length on the CPU, with masked targets."""
    lengths = (5, 9, 4, 6)
    targets = [numbers(n, 2, seed=20 + n) for n in lengths]
    masks = [torch.arange(n) % 4 != 1 for n in lengths]
    for target, mask in zip(targets, masks, strict=True):
        target[~mask] = math.nan
    inputs = [numbers(n, 3, seed=n) for n in lengths]
    return bptt.Stream(inputs, targets, mask=masks, **options)


def gradients(module: nn.Module) -> list[Tensor | None]:
    """Of all parameters."""
    return [p.grad for p in module.parameters()]


def trained(net: bptt.Network, stream: bptt.Stream, **options: Any) -> Any:
    """Weights and history of a short training run."""
    history = bptt.fit(net, stream, **{"epochs": 2, "progress": False, **options})
    device = next(net.parameters()).device
    weights = here(list(net.parameters()), device)
    return [weights, [[e.loss, e.gradient_norm, e.validation] for e in history.epochs]]


# -- unfolding ---------------------------------------------------------------------------------


# -- gradient methods --------------------------------------------------------------------------
METHODS: dict[str, Callable[[], Any]] = {
    "full": bptt.Full,
    "full in segments": lambda: bptt.Full(segment=5),
    "full in memory": lambda: bptt.Full(memory="250kB"),
    "truncated": lambda: bptt.Truncated(5),
    "truncated, stride": lambda: bptt.Truncated(6, 2),
    "truncated, recomputed": lambda: bptt.Truncated(6, 3, context="recomputed", combine="mean"),
    "truncated, stored": lambda: bptt.Truncated(6, 2, history="stored"),
    "truncated, last": lambda: bptt.Truncated(4, 6, loss="last"),
    "stride 1": lambda: bptt.Truncated(4, 1),
    "rtrl": lambda: bptt.RTRL(stride=4),
    "uoro": lambda: bptt.UORO(stride=4),
    "evolution": lambda: bptt.EvolutionStrategies(pairs=3),
}

SGD = lambda parameters: torch.optim.SGD(parameters, 0.01)  # noqa: E731
