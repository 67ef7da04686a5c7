"""Cells for the engine's tests, written as their papers have them, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bptt import cells
from bptt.state import State


class LayerNormGRU(nn.Module):
    """GRU with layer normalisation of both projections (Ba, Kiros and Hinton 2016)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.from_state = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.norm_input = nn.LayerNorm(3 * hidden_size)
        self.norm_state = nn.LayerNorm(3 * hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        x = self.norm_input(self.from_input(input)).chunk(3, 1)
        h = self.norm_state(self.from_state(state)).chunk(3, 1)
        reset, keep = torch.sigmoid(x[0] + h[0]), torch.sigmoid(x[1] + h[1])
        new = torch.tanh(x[2] + reset * h[2])
        return (1 - keep) * new + keep * state


class PeepholeLSTM(nn.Module):
    """LSTM whose gates see the memory (Gers and Schmidhuber 2000)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
        self.peep = nn.Parameter(torch.randn(3, hidden_size) * 0.3)

    def initial_state(self, batch: int) -> State:
        """Zeros ``(h, c)``."""
        zeros = self.peep.new_zeros(batch, self.hidden_size)
        return zeros, zeros.clone()

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step."""
        hidden, memory = state
        i, f, g, o = self.gates(torch.cat([input, hidden], 1)).chunk(4, 1)
        i, f = torch.sigmoid(i + self.peep[0] * memory), torch.sigmoid(f + self.peep[1] * memory)
        memory = f * memory + i * torch.tanh(g)
        return torch.sigmoid(o + self.peep[2] * memory) * torch.tanh(memory), memory


class CoupledLSTM(nn.Module):
    """LSTM with the input gate tied to one minus the forget gate (Greff et al. 2015)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x, self.h = (
            nn.Linear(input_size, 3 * hidden_size),
            nn.Linear(hidden_size, 3 * hidden_size),
        )

    def initial_state(self, batch: int) -> State:
        """Zeros ``(h, c)``."""
        zeros = self.x.weight.new_zeros(batch, self.hidden_size)
        return zeros, zeros.clone()

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step."""
        hidden, memory = state
        f, g, o = (self.x(input) + self.h(hidden)).split(self.hidden_size, 1)
        f = torch.sigmoid(f)
        memory = torch.lerp(torch.tanh(g), memory, f)
        return torch.sigmoid(o) * torch.tanh(memory), memory


class MinimalGated(nn.Module):
    """Minimal gated unit (Zhou et al. 2016): one gate, applied before the product."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gate = nn.Linear(hidden_size + input_size, hidden_size)
        self.new = nn.Linear(hidden_size + input_size, hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        forget = torch.sigmoid(self.gate(torch.cat([state, input], 1)))
        new = torch.tanh(self.new(torch.cat([forget * state, input], 1)))
        return (1 - forget) * state + forget * new


class IndRNN(nn.Module):
    """Independently recurrent units (Li et al. 2018): no product with the state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x = nn.Linear(input_size, hidden_size)
        self.u = nn.Parameter(torch.rand(hidden_size))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return functional.relu(self.x(input) + self.u * state)


class MultiLayer(nn.Module):
    """A recurrent function of several layers, with a skip and mixed nonlinearities."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.body = nn.Sequential(
            nn.Linear(input_size + hidden_size, 2 * hidden_size + 1),
            nn.GELU(),
            nn.LayerNorm(2 * hidden_size + 1),
            nn.Linear(2 * hidden_size + 1, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, hidden_size, bias=False),
        )

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(state + self.body(torch.cat((input, state), dim=-1)))


class ExponentialGates(nn.Module):
    """sLSTM (Beck et al. 2024): exponential gates, a normaliser, and the running maximum m."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x = nn.Linear(input_size, 4 * hidden_size)
        self.h = nn.Linear(hidden_size, 4 * hidden_size, bias=False)

    def initial_state(self, batch: int) -> State:
        """``(h, (c, n, m))``: the normaliser starts at one."""
        zeros = self.x.weight.new_zeros(batch, self.hidden_size)
        return zeros, (zeros.clone(), torch.ones_like(zeros), zeros.clone())

    def forward(
        self, input: Tensor, state: tuple[Tensor, tuple[Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """One step."""
        hidden, (c, n, m) = state
        i, f, z, o = (self.x(input) + self.h(hidden)).view(-1, 4, self.hidden_size).unbind(1)
        forget = functional.logsigmoid(f)
        top = torch.maximum(forget + m, i)
        enter, keep = torch.exp(i - top), torch.exp(forget + m - top)
        c = keep * c + enter * torch.tanh(z)
        n = keep * n + enter
        return torch.sigmoid(o) * (c / n), (c, n, top)


class Attentive(nn.Module):
    """Softmax over the units, a mean, a per-unit scale: reductions over features."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x = nn.Linear(input_size, hidden_size)
        self.h = nn.Linear(hidden_size, hidden_size)
        self.scale = nn.Parameter(torch.rand(hidden_size) + 0.5)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        scores = torch.softmax(self.h(state) * self.scale, dim=-1)
        centred = state - state.mean(1, keepdim=True)
        return torch.tanh(self.x(input) + scores * centred * self.hidden_size)


class Shared(nn.Module):
    """One weight used twice in a step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x = nn.Linear(input_size, hidden_size)
        self.h = nn.Linear(hidden_size, hidden_size)
        self.twice = self.h

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(self.twice(torch.tanh(self.h(state) + self.x(input))) + self.x(input))


class Columns(nn.Module):
    """Weights on the left of the state, slices, a stack with its maximum, and a flip."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        scale = 0.5 / hidden_size**0.5
        self.w = nn.Parameter(torch.randn(hidden_size, hidden_size) * scale)
        self.v = nn.Parameter(torch.randn(hidden_size) * scale)
        self.x = nn.Linear(input_size, hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        drive = (self.w @ state.t()).t() + self.x(input)
        half = self.hidden_size // 2
        turned = torch.cat([drive[:, half:], drive[:, :half]], 1)
        top = torch.stack([drive, turned, torch.zeros_like(drive)], 1).amax(1)
        return torch.tanh(top * (state @ self.v)[:, None] + drive)


class Embedding(nn.Module):
    """Reads indices: the input is [lane] of whole numbers."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.table = nn.Embedding(input_size, hidden_size)
        self.h = nn.Linear(hidden_size, hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(self.table(input) + self.h(state))


def stacked(input_size: int, hidden_size: int) -> nn.Module:
    """Three layers of different cells as one."""
    return cells.Stack(
        cells.GRU(input_size, hidden_size),
        cells.LSTM(hidden_size, hidden_size + 1),
        cells.Elman(hidden_size + 1, hidden_size),
    )


def leaky(input_size: int, hidden_size: int) -> nn.Module:
    """A leaky integrator with a rate for each unit."""
    return cells.Leaky(input_size, hidden_size, rate=torch.linspace(0.1, 1.0, hidden_size))


_ALIVE: dict[Any, nn.Module] = {}


def _kept(maker: Callable[[int, int], nn.Module]) -> Callable[[int, int], nn.Module]:
    """The first cell of each size stays alive: cells of one structure share what was captured while
    one of them lives, and tests then take a third of the time."""

    def make(input_size: int, hidden_size: int) -> nn.Module:
        made = maker(input_size, hidden_size)
        _ALIVE.setdefault((maker, input_size, hidden_size, torch.get_default_dtype()), made)
        return made

    return make


_MAKERS: dict[str, Callable[[int, int], nn.Module]] = {
    "rnn": nn.RNNCell,
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
    "elman": cells.Elman,
    "own gru": cells.GRU,
    "own lstm": cells.LSTM,
    "leaky": leaky,
    "state-space": cells.StateSpace,
    "layer-normalised gru": LayerNormGRU,
    "peephole lstm": PeepholeLSTM,
    "minimal gated": MinimalGated,
    "indrnn": IndRNN,
    "coupled lstm": CoupledLSTM,
    "multi-layer": MultiLayer,
    "stack": stacked,
    "exponential gates": ExponentialGates,
    "attentive": Attentive,
    "shared": Shared,
    "columns": Columns,
}
ZOO = {name: _kept(maker) for name, maker in _MAKERS.items()}
"""Every cell that must have a step program: name to a maker ``(input_size, hidden_size)``."""
