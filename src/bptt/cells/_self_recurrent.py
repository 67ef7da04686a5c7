"""Units that feed back on themselves alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bptt.errors import at_least


class SelfRecurrent(nn.Module):
    """Self-recurrent units: ``h' = d · h + tanh(W_ih x + b)``, each with a decay d of its own.

    No unit sees another, so that `bptt.Focused` finds the exact gradient without unfolding.

    Args:
        input_size: features of the input.
        hidden_size: units.
        bias: whether there is a bias vector.
        device, dtype: of the parameters.

    Shapes: input [lane, input_size], state [lane, hidden_size]. The decays are ``weight_hh``
    [hidden_size], drawn uniformly between 0 and 1.

    Source: M. C. Mozer, A focused back-propagation algorithm for temporal pattern recognition,
    Complex Systems 3 (1989), equation 2.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least(1, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight_ih = empty(hidden_size, input_size)
        self.weight_hh = empty(hidden_size)
        self.bias_ih: nn.Parameter | None
        if bias:
            self.bias_ih = empty(hidden_size)
        else:
            self.register_parameter("bias_ih", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew: within ±1/√input, the decays between 0 and 1."""
        bound = self.input_size**-0.5
        nn.init.uniform_(self.weight_ih, -bound, bound)
        nn.init.uniform_(self.weight_hh, 0.0, 1.0)
        if self.bias_ih is not None:
            nn.init.uniform_(self.bias_ih, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}" + (
            "" if self.bias_ih is not None else ", bias=False"
        )

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        return self.weight_hh * state + torch.tanh(linear(input, self.weight_ih, self.bias_ih))
