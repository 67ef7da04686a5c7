"""What the cells share: PyTorch's parameter names, shapes and initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bptt.errors import at_least


class PlainCell(nn.Module):
    """Weights of a cell with ``gates`` blocks: ``weight_ih`` [gates·hidden, input], ``weight_hh``
    [gates·hidden, hidden] and the two biases [gates·hidden], drawn as PyTorch draws them:
    uniformly within ±1/√hidden."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        gates: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        at_least(1, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = gates * hidden_size

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight_ih = empty(rows, input_size)
        self.weight_hh = empty(rows, hidden_size)
        self.bias_ih: nn.Parameter | None
        self.bias_hh: nn.Parameter | None
        if bias:
            self.bias_ih = empty(rows)
            self.bias_hh = empty(rows)
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, uniformly within ±1/√hidden."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes, as `torch.nn`'s cells print them."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def drive(self, input: Tensor, hidden: Tensor) -> Tensor:
        """The summed projections of input and state, [lane, gates·hidden]."""
        return nn.functional.linear(input, self.weight_ih, self.bias_ih) + nn.functional.linear(
            hidden, self.weight_hh, self.bias_hh
        )
