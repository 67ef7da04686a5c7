"""The recurrent functions of PyTorch's layers as cells, one for each kind and size.

A layer's weights are the layer's own. Its step program depends on sizes alone, so it is traced on a
cell that stands for all layers of its size, and run on the weights of the layer at hand: equal
layers, copies and replicas share one program, and nothing is kept with the layer itself.
"""

from __future__ import annotations

import atexit
import copy
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bptt import cells
from bptt.cells._base import PlainCell
from bptt.engine import Plan, Unsupported, plan_for
from bptt.engine._torch_compat import outside_of_modes
from bptt.engine.frontend.builtin import register
from bptt.engine.runtime.library import LAYOUT, name_cells
from bptt.state import State


class ProjectedLSTM(PlainCell):
    """LSTM whose hidden state is projected, ``h' = W_hr (o · tanh(c'))``; without values.

    Source: H. Sak, A. Senior and F. Beaufays, Long short-term memory based recurrent neural network
    architectures, arXiv:1402.1128 (2014). Parameters as `torch.nn.LSTM` with ``proj_size``.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool, proj_size: int) -> None:
        super().__init__(input_size, hidden_size, bias, 4, "meta", None)
        self.proj_size = proj_size
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, proj_size, device="meta"))
        self.weight_hr = nn.Parameter(torch.empty(proj_size, hidden_size, device="meta"))

    def initial_state(self, batch: int) -> State:
        """Zeros ``(h, c)``, [batch, proj_size] and [batch, hidden_size]."""
        new = self.weight_hh.new_zeros
        return new(batch, self.proj_size), new(batch, self.hidden_size)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: the new state ``(h, c)``."""
        hidden, memory = state
        gates = self.drive(input, hidden).chunk(4, dim=1)
        enter, keep, leave = (torch.sigmoid(gates[i]) for i in (0, 1, 3))
        memory = keep * memory + enter * torch.tanh(gates[2])
        return linear(leave * torch.tanh(memory), self.weight_hr), memory


register(ProjectedLSTM)


class Kind(NamedTuple):
    """What the step program of one layer in one direction depends on.

    Attributes:
        mode: as `torch.nn.RNNBase.mode`.
        input_size, hidden_size, proj_size: widths; no projection is 0.
        bias: whether there are bias vectors.
    """

    mode: str
    input_size: int
    hidden_size: int
    proj_size: int
    bias: bool

    def blank(self) -> PlainCell:
        """A cell of this kind without values: none are drawn."""
        sizes = self.input_size, self.hidden_size, self.bias
        if self.mode == "GRU":
            return cells.GRU(*sizes, device="meta")
        if self.mode == "LSTM" and self.proj_size:
            return ProjectedLSTM(*sizes, self.proj_size)
        if self.mode == "LSTM":
            return cells.LSTM(*sizes, device="meta")
        return cells.Elman(*sizes, self.mode.removeprefix("RNN_").lower(), device="meta")

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the leaves of its state."""
        first = self.proj_size or self.hidden_size
        return (first, self.hidden_size) if self.mode == "LSTM" else (first,)


class Standing(NamedTuple):
    """A cell that stands for all of its kind.

    Attributes:
        kind: of the cell.
        dtype: of its parameters, without ``torch.``.
        needs: which of its parameters need gradients, in their order.
    """

    kind: Kind
    dtype: str
    needs: tuple[bool, ...]

    @property
    def name(self) -> str:
        """What operators know the cell by; `read` is the inverse."""
        flags = "".join([str(int(flag)) for flag in self.needs])
        sizes = [*self.kind[:4], int(self.kind.bias), self.dtype, flags, LAYOUT]
        return ",".join(map(str, sizes))

    @staticmethod
    def read(name: str) -> Standing | None:
        """The cell of a name, None if the name is not one of these."""
        mode, *rest = name.split(",")
        if mode not in ("RNN_TANH", "RNN_RELU", "GRU", "LSTM"):
            return None
        input_size, hidden_size, proj_size, bias = map(int, rest[:4])
        kind = Kind(mode, input_size, hidden_size, proj_size, bool(bias))
        return Standing(kind, rest[4], tuple([flag == "1" for flag in rest[5]]))


KEPT = 128
"""So many cells stand ready; another one is made again when it is asked for."""


@lru_cache(maxsize=KEPT)
def cell_of(standing: Standing) -> PlainCell:
    """The cell itself, the same one while it is kept."""
    dtype = getattr(torch, standing.dtype)
    with outside_of_modes():
        cell = standing.kind.blank()
    for (name, made), needs in zip(list(cell.named_parameters()), standing.needs, strict=True):
        # Its values are never read or written.
        blank = torch.empty(made.shape, dtype=dtype, device="cpu")
        setattr(cell, name, nn.Parameter(blank, needs))
    return cell


atexit.register(cell_of.cache_clear)  # the core's programs go before the core does


def holding(standing: Standing, weights: list[Tensor]) -> PlainCell:
    """A cell of this kind whose parameters are ``weights``, any tensors."""
    cell = copy.copy(cell_of(standing))
    given = iter(weights)
    held = {n: None if p is None else next(given) for n, p in cell._parameters.items()}
    cell.__dict__["_parameters"] = held
    return cell


def _named(name: str) -> nn.Module | None:
    standing = Standing.read(name)
    return None if standing is None else cell_of(standing)


name_cells(_named)


def plan(
    cell: PlainCell, weights: list[Tensor], inputs: Tensor, state: State
) -> Plan | Unsupported:
    """The plan of a standing cell for these weights, inputs [T, B, n] and state, or why there is
    none."""
    found = plan_for(cell, inputs, state, state)
    return found.bound(weights, []) if isinstance(found, Plan) else found
