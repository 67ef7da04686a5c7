"""Cells, readouts and losses that return what they must not, or do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt import BpttError, CellError, OptionError, ShapeError, Stream

from ..helpers import CELLS, F64, Network, network, series
from .case import GOOD, LANED, Case, option, train


class Plain(nn.Module):
    """A cell made of two functions."""

    hidden_size = 3

    def __init__(self, step: Callable[[Tensor, Any], Any], start: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, dtype=F64))
        self.step = step
        if start is not None:
            self.initial_state = start

    def forward(self, input: Tensor, state: Any) -> Any:
        return self.step(state @ self.weight, state)


class Returning(nn.Module):
    """A readout made of a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, outputs: Tensor) -> Any:
        return self.function(outputs)


def plain(step: Callable[[Tensor, Any], Any], start: Any = None) -> Callable[[], bptt.Network]:
    return lambda: Network(Plain(step, start), nn.Linear(3, 1, dtype=F64))


def reading(function: Callable[[Tensor], Any]) -> Callable[[], bptt.Network]:
    return lambda: Network(CELLS["Elman"](2, 3), Returning(function))


def stacked(lower: int) -> Callable[[], bptt.Network]:
    return lambda: Network(
        bptt.Stack(CELLS["GRU"](lower, 4), CELLS["GRU"](4, 3)), nn.Linear(3, 1, dtype=F64)
    )


def ill_fitting() -> bptt.Network:
    return Network(bptt.Stack(CELLS["GRU"](2, 4), CELLS["GRU"](5, 3)), nn.Linear(3, 1, dtype=F64))


FUNCTIONS = [
    Case(
        "a cell that returns output and state",
        CellError,
        r"returned \(output, state\).*method `output\(state\)`",
        train(),
        plain(lambda new, _: (new, new)),
    ),
    Case(
        "a cell that returns another shape",
        CellError,
        r"state of the shape \[2, 3\] and returned \[2, 2\]",
        train(),
        plain(lambda new, _: new[:, :2]),
    ),
    Case(
        "a cell that returns nothing",
        CellError,
        r"returned NoneType",
        train(),
        plain(lambda new, _: None),
    ),
    Case(
        "a cell that changes the dtype",
        CellError,
        r"float64 and returned one of torch\.float32",
        train(),
        plain(lambda new, _: new.float()),
    ),
    Case(
        "an initial state for one lane",
        CellError,
        r"initial_state\(2\) must return a tensor \[2",
        train(),
        plain(lambda new, _: new, lambda batch: torch.zeros(1, 3, dtype=F64)),
    ),
    Case(
        "an initial state that is a list",
        CellError,
        r"initial_state\(1\).*not list",
        option(lambda: Network(Plain(abs, lambda batch: [torch.zeros(batch, 3)]))),
    ),
    Case(
        "a stack fed with other features",
        ShapeError,
        r"inputs have 2 features.*Stack reads 3",
        train(),
        stacked(3),
    ),
    Case("layers that do not fit", CellError, r"4.*5", lambda net: ill_fitting()),
    Case(
        "an output that is no tensor",
        CellError,
        r"output\(state\) must return a tensor, not a str",
        train(),
        lambda: Network(Worded(), nn.Linear(3, 1, dtype=F64)),
    ),
    Case(
        "a readout that drops the lanes",
        CellError,
        r"readout was given \[3, 2, 3\].*\[3\]",
        train(),
        reading(lambda outputs: outputs.mean(dim=(1, 2))),
    ),
    Case(
        "a readout that returns a pair",
        CellError,
        r"readout was given.*returned tuple",
        train(),
        reading(lambda outputs: (outputs, outputs)),
    ),
    Case(
        "a readout of other features",
        ShapeError,
        r"\[3\] features per step, targets \[1\]",
        train(),
        reading(lambda outputs: outputs),
    ),
    Case("a loss misspelt", OptionError, r"loss='mes' is unknown.*mean 'mse'", train(loss="mes")),
    Case(
        "a loss that is a number",
        OptionError,
        r"loss must be a name or a function, not a int",
        train(loss=3),
    ),
    Case(
        "a scalar loss",
        CellError,
        r"the loss returned \[\].*reduction='none'",
        train(loss=nn.functional.mse_loss),
    ),
    Case(
        "a scalar loss in segments",
        CellError,
        r"the loss returned \[\].*reduction='none'",
        train(loss=nn.MSELoss(), method=bptt.Full(2)),
    ),
    Case(
        "a loss that returns a number",
        CellError,
        r"the loss returned float",
        train(loss=lambda p, t: 0.5),
    ),
    Case(
        "a loss without lanes",
        CellError,
        r"the loss returned \[3\].*one value per step and lane",
        train(loss=lambda p, t: (p - t).square().mean(dim=(1, 2))),
    ),
    Case(
        "classes for a loss of differences",
        ShapeError,
        r"targets are torch\.int64.*cross_entropy",
        train(Stream(GOOD, torch.arange(5))),
        lambda: Network(CELLS["Elman"](2, 5), Squeeze()),
    ),
    Case(
        "a class too many",
        ShapeError,
        r"class indices run from 0 to 4.*scores 3 classes, 0 to 2",
        train(Stream(GOOD, torch.arange(5)), "cross_entropy", bptt.Full()),
        lambda: network(outputs=3),
    ),
    Case(
        "a network that is only a module",
        CellError,
        r"must be a bptt\.Network.*not a Elman",
        lambda net: bptt.Full().updates(net.cell, "mse", series(4)),
    ),
    Case("a stream that is a tensor", BpttError, r"Stream.*Tensor", train(LANED)),
    Case(
        "nothing to train",
        CellError,
        r"no parameter of the network requires a gradient",
        train(),
        lambda: network().requires_grad_(False),
    ),
    Case(
        "batch statistics in the readout",
        CellError,
        r"batch statistics.*LayerNorm.*eval",
        train(),
        lambda: Network(CELLS["Elman"](2, 3), nn.BatchNorm1d(3)),
    ),
]


class Worded(nn.Module):
    """A cell whose output is text."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return state @ self.weight

    def output(self, state: Tensor) -> str:
        return "state"


class Squeeze(nn.Module):
    """One prediction a step without a feature axis, as class indices have none."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[..., 0]
