"""Cells whose state is one vector of units: Elman's network and the leaky integrator."""

from __future__ import annotations

import torch
from torch import Tensor

from bptt.cells._base import PlainCell
from bptt.errors import OptionError, one_of


class Elman(PlainCell):
    """Elman's simple recurrent network: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Args:
        input_size: features of the input.
        hidden_size: units.
        bias: whether there are bias vectors.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state [lane, hidden_size].

    Source: J. L. Elman, Finding structure in time, Cognitive Science 14 (1990). Parameters as
    `torch.nn.RNNCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        one_of(("tanh", "relu"), nonlinearity=nonlinearity)
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        drive = self.drive(input, state)
        return torch.tanh(drive) if self.nonlinearity == "tanh" else torch.relu(drive)


class Leaky(PlainCell):
    """Leaky integrator: ``h' = (1 − α) h + α tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Args:
        input_size: features of the input.
        hidden_size: units.
        rate: α, above 0 and at most 1; a number, or a tensor [hidden_size] for a rate per unit.
        time_constant: τ in steps, at least 1, in place of ``rate``: α = 1/τ (Euler's rule with a
            step of one); a number or a tensor [hidden_size].
        bias: whether there are bias vectors.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state [lane, hidden_size].

    Source: H. Jaeger et al., Optimization and applications of echo state networks with leaky
    integrator neurons, Neural Networks 20 (2007), equation 1, with the leak and the gain tied.
    """

    rate: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rate: float | Tensor | None = None,
        time_constant: float | Tensor | None = None,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        one_of(("tanh", "relu"), nonlinearity=nonlinearity)
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity
        self.register_buffer("rate", leak(rate, time_constant, hidden_size).to(self.weight_hh))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        drive = self.drive(input, state)
        driven = torch.tanh(drive) if self.nonlinearity == "tanh" else torch.relu(drive)
        return state + self.rate * (driven - state)


def leak(
    rate: float | Tensor | None, time_constant: float | Tensor | None, hidden_size: int
) -> Tensor:
    """α of each unit, float64 [hidden_size], from either of the two.

    Raises:
        OptionError: both or none is given, a number is out of range, or there are not as many as
            units.
    """
    if (rate is None) == (time_constant is None):
        raise OptionError("give either rate= or time_constant=, exactly one of them.")
    if rate is None:
        constant = torch.as_tensor(time_constant, dtype=torch.float64)
        if not bool((constant >= 1).all()):
            raise OptionError(f"time_constant must be at least 1 step, not {time_constant}.")
        leak = 1.0 / constant
    else:
        leak = torch.as_tensor(rate, dtype=torch.float64)
        if not bool(((leak > 0) & (leak <= 1)).all()):
            raise OptionError(f"rate must be above 0 and at most 1, not {rate}.")
    if leak.dim() > 1 or (leak.dim() == 1 and leak.shape[0] != hidden_size):
        raise OptionError(
            f"a rate per unit must have the shape [{hidden_size}], not {list(leak.shape)}."
        )
    return leak.expand(hidden_size).clone()
