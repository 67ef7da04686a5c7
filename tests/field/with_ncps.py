"""ncps: closed-form continuous-time cells, liquid time constants, and wirings of either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import bptt

from .common import Pair, main, twins

FEATURES = 8


# [adapt]
class Cell(nn.Module):
    """A step of a `CfC` or `LTC` layer; with times, the last feature is the time since the last."""

    def __init__(self, layer: nn.Module, times: bool = False) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def initial_state(self, batch: int) -> Any:
        zeros = torch.zeros(batch, self.layer.state_size)
        return (zeros, zeros) if self.layer.use_mixed else zeros

    def forward(self, input: Tensor, state: Any) -> Any:
        input, span = (input[:, :-1], input[:, -1:]) if self.times else (input, 1.0)
        if not self.layer.use_mixed:
            return self.layer.rnn_cell(input, state, span)[1]
        hidden, memory = self.layer.lstm(input, state)
        return self.layer.rnn_cell(input, hidden, span)[1], memory

    def output(self, state: Any) -> Tensor:
        hidden = state[0] if self.layer.use_mixed else state
        if isinstance(self.layer, LTC):
            return self.layer.rnn_cell._map_outputs(hidden)
        return self.layer.fc(hidden[:, -self.layer.output_size :])


# [/adapt]


def case(make_layer: Callable[[], nn.Module], steps: int, lanes: int) -> Callable[[], Pair]:
    def make() -> Pair:
        inputs = torch.randn(steps, lanes, FEATURES, requires_grad=True)

        def before(cell: Cell) -> Any:
            return cell.layer(inputs)

        def after(cell: Cell) -> Any:
            return bptt.unfold(cell, inputs)

        cell = Cell(make_layer()).to(torch.get_default_dtype())
        return twins(cell, before, after, steps, lanes, [inputs])

    return make


def irregular() -> Pair:
    """Times that differ from step to step, given beside the inputs; ncps takes them of one lane."""
    inputs, spans = torch.randn(100, 1, FEATURES), torch.rand(100, 1, 1)

    def before(cell: Cell) -> Any:
        return cell.layer(inputs, timespans=spans)

    def after(cell: Cell) -> Any:
        return bptt.unfold(cell, torch.cat([inputs, spans], dim=2))

    layer = CfC(FEATURES, 32, batch_first=False)
    return twins(Cell(layer, times=True), before, after, 100, 1)


def cfc(**options: Any) -> CfC:
    return CfC(FEATURES, 32, batch_first=False, **options)


def wired(kind: Callable[..., nn.Module], units: int) -> nn.Module:
    return kind(FEATURES, AutoNCP(units, 4), batch_first=False)


CASES = {
    "CfC": case(cfc, 100, 16),
    "CfC, one lane": case(cfc, 100, 1),
    "CfC, pure": case(lambda: cfc(mode="pure"), 100, 16),
    "CfC, no gate": case(lambda: cfc(mode="no_gate"), 100, 16),
    "CfC with an LSTM's memory": case(lambda: cfc(mixed_memory=True), 100, 16),
    "CfC at irregular times": irregular,
    "CfC, wired": case(lambda: wired(CfC, 24), 100, 16),
    "LTC": case(lambda: LTC(FEATURES, 16, batch_first=False), 20, 4),
    "LTC, wired": case(lambda: wired(LTC, 16), 20, 4),
}

if __name__ == "__main__":
    main("ncps", CASES)
