"""A nonlinear state-space model: a linear system and a layer of units that corrects it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bptt.cells._basic import leak
from bptt.errors import at_least


class StateSpace(nn.Module):
    """Nonlinear state-space model: ``h' = h + α (A h + B x + W tanh(U h + V x + b))``.

    It starts as a linear system: A is −1, so that each state leaks with its own time constant 1/α,
    and W is zero. What is simulated seldom starts at rest: `bptt.Network` learns the state to start
    from with ``learn_initial_state=True``.

    Args:
        input_size: features of the input.
        hidden_size: states.
        width: units of the tanh layer; default: as many as there are states.
        time_constant: 1/α in steps, at least 1; a number or a tensor [hidden_size]; default: from 2
            to 64 in equal ratios.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state [lane, hidden_size].

    Source: J. A. K. Suykens, B. De Moor, J. Vandewalle, Nonlinear system identification using
    neural state space models, International Journal of Control 62 (1995), equation 1, with the
    linear part apart and Euler's rule for the time.
    """

    rate: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        width: int | None = None,
        time_constant: float | Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = hidden_size if width is None else width
        at_least(1, input_size=input_size, hidden_size=hidden_size, width=width)
        self.input_size, self.hidden_size, self.width = input_size, hidden_size, width
        if time_constant is None:
            time_constant = 2.0 * 32.0 ** torch.linspace(0, 1, hidden_size)

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.linear_ih = empty(hidden_size, input_size)
        self.linear_hh = empty(hidden_size, hidden_size)
        self.weight_ih = empty(width, input_size)
        self.weight_hh = empty(width, hidden_size)
        self.bias = empty(width)
        self.weight_out = empty(hidden_size, width)
        rate = leak(None, time_constant, hidden_size)
        self.register_buffer("rate", rate.to(self.weight_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw B, V, U and b anew; A to −1, W to zero."""
        bound = 1.0 / math.sqrt(self.input_size + self.hidden_size)
        nn.init.normal_(self.linear_ih)
        nn.init.uniform_(self.weight_ih, -bound, bound)
        nn.init.uniform_(self.weight_hh, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        with torch.no_grad():
            self.linear_hh.copy_(-torch.eye(self.hidden_size))
        nn.init.zeros_(self.weight_out)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        linear = nn.functional.linear
        units = torch.tanh(linear(input, self.weight_ih, self.bias) + linear(state, self.weight_hh))
        change = linear(input, self.linear_ih) + linear(state, self.linear_hh)
        return state + self.rate * (change + linear(units, self.weight_out))

    def extra_repr(self) -> str:
        """The sizes, as `torch.nn`'s cells print them."""
        return f"{self.input_size}, {self.hidden_size}, width={self.width}"
