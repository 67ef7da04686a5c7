"""Gated cells: GRU and LSTM, in PyTorch's gate orders."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from bptt.cells._base import PlainCell
from bptt.state import State


class GRU(PlainCell):
    """Gated recurrent unit, gates in the order r, z, n:

    - ``r = σ(W_ir x + b_ir + W_hr h + b_hr)``
    - ``z = σ(W_iz x + b_iz + W_hz h + b_hz)``
    - ``n = tanh(W_in x + b_in + r · (W_hn h + b_hn))``
    - ``h' = (1 − z) · n + z · h``

    Args:
        input_size: features of the input.
        hidden_size: units.
        bias: whether there are bias vectors.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state [lane, hidden_size].

    Source: K. Cho et al., EMNLP 2014, with the reset gate applied after the product as in
    `torch.nn.GRUCell`, whose parameters these are.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        # The new gate needs the two projections apart, so `drive` does not serve here.
        from_input = linear(input, self.weight_ih, self.bias_ih).chunk(3, dim=1)
        from_state = linear(state, self.weight_hh, self.bias_hh).chunk(3, dim=1)
        reset = torch.sigmoid(from_input[0] + from_state[0])
        keep = torch.sigmoid(from_input[1] + from_state[1])
        new = torch.tanh(from_input[2] + reset * from_state[2])
        return new + keep * (state - new)


class LSTM(PlainCell):
    """Long short-term memory, gates in the order i, f, g, o:

    - ``i, f, o = σ(W x + b + U h + c)``, ``g = tanh(W x + b + U h + c)``, each with its own rows
    - ``c' = f · c + i · g``
    - ``h' = o · tanh(c')``

    Args:
        input_size: features of the input.
        hidden_size: units.
        bias: whether there are bias vectors.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state ``(h, c)``, both [lane, hidden_size].

    Source: S. Hochreiter and J. Schmidhuber, Neural Computation 9 (1997), with the forget gate of
    F. Gers et al. (2000). Parameters as `torch.nn.LSTMCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def initial_state(self, batch: int) -> State:
        """Zeros ``(h, c)``, each [batch, hidden_size]."""
        zeros = self.weight_hh.new_zeros(batch, self.hidden_size)
        return zeros, torch.zeros_like(zeros)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: the new state ``(h, c)``."""
        hidden, memory = state
        gates = self.drive(input, hidden).chunk(4, dim=1)
        enter, keep, leave = (torch.sigmoid(gates[i]) for i in (0, 1, 3))
        memory = keep * memory + enter * torch.tanh(gates[2])
        return leave * torch.tanh(memory), memory
