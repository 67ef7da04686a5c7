"""Bad input is refused before any work: what was given, what was expected, and the mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import BpttError, CellError, DataError, OptionError, ShapeError, Stream

from .helpers import (
    BACKEND,
    CELLS,
    F64,
    Network,
    assert_same,
    data,
    network,
    ragged,
    series,
    weights,
)

Act = Callable[[bptt.Network], Any]


@dataclass(frozen=True)
class Case:
    """What is done, to which network, and what the message must say."""

    name: str
    error: type[BpttError]
    message: str
    act: Act
    net: Callable[[], bptt.Network] = network


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


def train(stream: Any = None, loss: Any = "mse", method: Any = None, state: Any = None) -> Act:
    """One pass over a stream, which must never come to an update."""

    def act(net: bptt.Network) -> None:
        given = series(6) if stream is None else stream
        chosen = bptt.Truncated(3) if method is None else method
        for _ in chosen.updates(net, loss, given, state):
            pytest.fail("an update was made of bad input")

    return act


def option(make: Callable[[], Any]) -> Act:
    """Something that is refused when it is made."""
    return lambda net: make()


def unfold(*args: Any, **options: Any) -> Act:
    return lambda net: bptt.unfold(net.cell, *args, **{"backend": BACKEND, **options})


def with_value(value: float, *place: int) -> Tensor:
    tensor = data(5, 2)
    tensor[place] = value
    return tensor


GOOD = data(5, 2)
LANED = data(5, 3, 2)

OPTIONS = [
    Case(
        "depth 0",
        OptionError,
        r"depth must be at least 1, not 0",
        option(lambda: bptt.Truncated(0)),
    ),
    Case(
        "depth a fraction",
        OptionError,
        r"depth must be a whole number, not 2\.5",
        option(lambda: bptt.Truncated(2.5)),
    ),
    Case(
        "depth a flag",
        OptionError,
        r"depth must be a whole number, not True",
        option(lambda: bptt.Truncated(True)),
    ),
    Case(
        "stride 0",
        OptionError,
        r"stride must be at least 1, not 0",
        option(lambda: bptt.Truncated(3, 0)),
    ),
    Case(
        "segment 0", OptionError, r"segment must be at least 1, not 0", option(lambda: bptt.Full(0))
    ),
    Case(
        "sliding depth negative",
        OptionError,
        r"depth must be at least 1, not -1",
        option(lambda: bptt.SlidingWindow(-1)),
    ),
    Case(
        "loss rule misspelt",
        OptionError,
        r"loss='lst' is unknown.*mean 'last'.*'new'",
        option(lambda: bptt.Truncated(3, loss="lst")),
    ),
    Case(
        "context misspelt",
        OptionError,
        r"context='recompute' is unknown.*mean 'recomputed'",
        option(lambda: bptt.Truncated(3, context="recompute")),
    ),
    Case(
        "history misspelt",
        OptionError,
        r"history='store' is unknown.*mean 'stored'",
        option(lambda: bptt.Truncated(3, history="store")),
    ),
    Case(
        "combine misspelt",
        OptionError,
        r"combine='average' is unknown.*'sum', 'mean'",
        option(lambda: bptt.SlidingWindow(3, combine="average")),
    ),
    Case(
        "stored and recomputed",
        OptionError,
        r"history='stored'.*not with context='recomputed'",
        option(lambda: bptt.Truncated(3, 1, context="recomputed", history="stored")),
    ),
    Case(
        "stored and all",
        OptionError,
        r"history='stored'.*loss='all'",
        option(lambda: bptt.Truncated(3, 1, "all", history="stored")),
    ),
    Case(
        "hidden size 0",
        OptionError,
        r"hidden_size must be at least 1, not 0",
        option(lambda: bptt.cells.GRU(2, 0)),
    ),
    Case(
        "nonlinearity misspelt",
        OptionError,
        r"nonlinearity='tahn' is unknown.*mean 'tanh'",
        option(lambda: bptt.cells.Elman(2, 3, nonlinearity="tahn")),
    ),
    Case(
        "leak of zero",
        OptionError,
        r"rate must be above 0 and at most 1, not 0",
        option(lambda: bptt.cells.Leaky(2, 3, rate=0.0)),
    ),
    Case(
        "time constant below a step",
        OptionError,
        r"time_constant must be at least 1 step, not 0\.5",
        option(lambda: bptt.cells.Leaky(2, 3, time_constant=0.5)),
    ),
    Case(
        "leak given twice",
        OptionError,
        r"either rate= or time_constant=, exactly one",
        option(lambda: bptt.cells.Leaky(2, 3, rate=0.5, time_constant=2.0)),
    ),
    Case(
        "leak of another size",
        OptionError,
        r"shape \[3\], not \[4\]",
        option(lambda: bptt.cells.Leaky(2, 3, rate=torch.full((4,), 0.5))),
    ),
    Case(
        "an empty stack", CellError, r"Stack needs at least one cell", option(lambda: bptt.Stack())
    ),
    Case(
        "a stack of a number", CellError, r"Stack takes cells.*not 3", option(lambda: bptt.Stack(3))
    ),
    Case(
        "a cell that is no module",
        CellError,
        r"cell must be a torch\.nn\.Module, not <built-in",
        option(lambda: Network(abs)),
    ),
    Case(
        "a readout that is no module",
        CellError,
        r"readout must be a torch\.nn\.Module",
        option(lambda: Network(CELLS["Elman"](2, 3), "linear")),
    ),
    Case(
        "a cell that hides its state's shape",
        CellError,
        r"Linear does not tell the shape of its state.*hidden_size.*initial_state\(batch\)",
        option(lambda: Network(nn.Linear(2, 3))),
    ),
    Case(
        "a clip of zero",
        OptionError,
        r"clip_state_gradient must be a number above 0, not 0",
        unfold(LANED, clip_state_gradient=0.0),
    ),
    Case(
        "a clip of text",
        OptionError,
        r"clip_state_gradient must be .*'1'",
        unfold(LANED, clip_state_gradient="1"),
    ),
    Case(
        "backend misspelt",
        OptionError,
        r"backend='eagr' is unknown.*mean 'eager'",
        unfold(LANED, backend="eagr"),
    ),
]

DATA = [
    Case(
        "no targets, no horizon",
        OptionError,
        r"without targets.*horizon=1",
        option(lambda: Stream(GOOD)),
    ),
    Case(
        "NaN in the inputs",
        DataError,
        r"inputs are nan at row 3, column 1.*fill or remove",
        option(lambda: Stream(with_value(float("nan"), 3, 1), GOOD)),
    ),
    Case(
        "infinity in the targets",
        DataError,
        r"targets are -inf at row 2, column 0.*mask=",
        option(lambda: Stream(GOOD, with_value(float("-inf"), 2, 0))),
    ),
    Case(
        "NaN in a lane",
        DataError,
        r"inputs are nan at row 4, lane 2, column 1",
        option(
            lambda: Stream(
                torch.where(torch.arange(30).reshape(5, 3, 2) == 29, torch.nan, LANED), LANED
            )
        ),
    ),
    Case(
        "NaN in one sequence of a list",
        DataError,
        r"sequence 1: inputs are nan at row 0, column 1",
        option(lambda: Stream([GOOD, with_value(float("nan"), 0, 1)], [GOOD, GOOD])),
    ),
    Case(
        "NaN under a mask that counts it",
        DataError,
        r"targets are nan at row 1.*1 such row",
        option(
            lambda: Stream(
                GOOD,
                with_value(float("nan"), 1, 1),
                mask=torch.tensor([True, True, False, True, True]),
            )
        ),
    ),
    Case(
        "nothing but NaN",
        DataError,
        r"inputs are nan at row 0, column 0 \(3 such row",
        option(lambda: Stream(torch.full((3, 1), torch.nan), horizon=1)),
    ),
    Case(
        "no steps",
        DataError,
        r"the data is empty: it has no steps",
        option(lambda: Stream(torch.zeros(0, 2), torch.zeros(0, 1))),
    ),
    Case("an empty list", DataError, r"empty", option(lambda: Stream([], []))),
    Case(
        "an empty sequence",
        DataError,
        r"sequence 1 is empty",
        option(lambda: Stream([GOOD, GOOD[:0]], [GOOD, GOOD[:0]])),
    ),
    Case(
        "text",
        DataError,
        r"inputs must hold numbers, not <U",
        option(lambda: Stream(np.array([["a", "b"]]), np.ones((1, 1)))),
    ),
    Case(
        "objects",
        DataError,
        r"targets must hold numbers, not object",
        option(lambda: Stream(GOOD, np.array([[None]] * 5))),
    ),
    Case(
        "complex numbers",
        DataError,
        r"inputs must hold (real )?numbers, not .*complex",
        option(lambda: Stream(GOOD.to(torch.complex128), GOOD)),
    ),
    Case(
        "lengths that differ",
        ShapeError,
        r"5 steps of inputs but 4 of targets",
        option(lambda: Stream(GOOD, GOOD[:4])),
    ),
    Case(
        "lanes that differ",
        ShapeError,
        r"inputs \[5, 3, 2\] but targets \[5, 2, 1\].*time and lane",
        option(lambda: Stream(LANED, data(5, 2, 1))),
    ),
    Case(
        "lists that differ",
        ShapeError,
        r"list of 2 sequences, so targets must be a list.*not 1",
        option(lambda: Stream([GOOD, GOOD], [GOOD])),
    ),
    Case(
        "a list and a tensor",
        ShapeError,
        r"targets must be a list of as many, not Tensor",
        option(lambda: Stream([GOOD, GOOD], GOOD)),
    ),
    Case(
        "features that differ between sequences",
        ShapeError,
        r"sequence 1 has inputs \[5, 3\].*sequence 0 has \[5, 2\]",
        option(lambda: Stream([GOOD, data(5, 3)], [GOOD, GOOD])),
    ),
    Case(
        "four dimensions",
        ShapeError,
        r"inputs must be \[time, feature\].*\[2, 2, 2, 2\]",
        option(lambda: Stream(data(2, 2, 2, 2), data(2, 2, 2, 2))),
    ),
    Case(
        "a mask of numbers",
        ShapeError,
        r"mask must be bool, not torch\.float64",
        option(lambda: Stream(GOOD, GOOD, mask=torch.ones(5, dtype=F64))),
    ),
    Case(
        "a mask of another length",
        ShapeError,
        r"mask has the shape \[4\], expected \[5\]",
        option(lambda: Stream(GOOD, GOOD, mask=torch.ones(4, dtype=torch.bool))),
    ),
    Case(
        "masks for one of two",
        ShapeError,
        r"mask must be a list of as many",
        option(lambda: Stream([GOOD, GOOD], [GOOD, GOOD], mask=[torch.ones(5).bool()])),
    ),
    Case(
        "horizon negative",
        OptionError,
        r"horizon must be at least 0, not -1",
        option(lambda: Stream(GOOD, GOOD, horizon=-1)),
    ),
    Case(
        "burn-in a fraction",
        OptionError,
        r"burn_in must be a whole number, not 0\.5",
        option(lambda: Stream(GOOD, GOOD, burn_in=0.5)),
    ),
    Case(
        "lanes 0",
        OptionError,
        r"lanes must be at least 1, not 0",
        option(lambda: Stream(GOOD, GOOD, lanes=0)),
    ),
    Case(
        "more lanes than steps",
        OptionError,
        r"lanes=6 is more than the 5 steps",
        option(lambda: Stream(GOOD, GOOD, lanes=6)),
    ),
    Case(
        "more lanes than sequences",
        OptionError,
        r"lanes=3 is more than the 2 sequences",
        option(lambda: Stream([GOOD, GOOD], [GOOD, GOOD], lanes=3)),
    ),
    Case(
        "other lanes than the data's",
        OptionError,
        r"came with 3 lanes; lanes=2 is another",
        option(lambda: Stream(LANED, LANED, lanes=2)),
    ),
    Case(
        "batches of one series",
        OptionError,
        r"batch= takes whole sequences",
        option(lambda: Stream(GOOD, GOOD, batch=2)),
    ),
    Case(
        "lanes and batches",
        OptionError,
        r"either lanes= or batch=, not both",
        option(lambda: Stream([GOOD], [GOOD], batch=1, lanes=1)),
    ),
    Case(
        "a shuffled series",
        OptionError,
        r"shuffle= reorders whole sequences",
        option(lambda: Stream(GOOD, GOOD, shuffle=0)),
    ),
    Case(
        "a shuffle without a seed",
        OptionError,
        r"shuffle= is a seed, a whole number, not True",
        option(lambda: Stream([GOOD], [GOOD], shuffle=True)),
    ),
    Case(
        "shares above one",
        OptionError,
        r"shares above 0, together below 1, not \(0\.7, 0\.5\)",
        option(lambda: Stream(GOOD, GOOD).split(0.7, 0.5)),
    ),
    Case(
        "too few steps to split",
        DataError,
        r"5 steps are too few to split.*would be empty",
        option(lambda: Stream(GOOD, GOOD, horizon=4).split(0.5)),
    ),
    Case(
        "too short for a sliding window",
        DataError,
        r"depth 5 needs more than 5 steps.*shortest has 5.*a depth below 5",
        train(Stream(GOOD, GOOD[:, :1], horizon=1), method=bptt.SlidingWindow(5)),
    ),
    Case(
        "one sequence too short for a sliding window",
        DataError,
        r"depth 4 needs more than 4 steps",
        train(
            Stream([data(9, 2), data(3, 2)], [data(9, 1), data(3, 1)], batch=2, horizon=1),
            method=bptt.SlidingWindow(4),
        ),
    ),
    Case(
        "a sliding window without horizon",
        OptionError,
        r"horizon=1, not 0",
        train(method=bptt.SlidingWindow(2)),
    ),
]

UNFOLDING = [
    Case(
        "inputs that are no tensor",
        ShapeError,
        r"inputs must be a torch\.Tensor, not a ndarray",
        unfold(np.ones((3, 1, 2))),
    ),
    Case(
        "one dimension",
        ShapeError,
        r"\[time, lane, feature\], not \[4\].*inputs\[:, None, :\]",
        unfold(data(4)),
    ),
    Case(
        "no lane dimension",
        ShapeError,
        r"\[time, lane, 2\], not \[5, 2\].*inputs\[:, None, :\]",
        unfold(GOOD),
    ),
    Case(
        "other features",
        ShapeError,
        r"inputs have 4 features.*Elman reads 2",
        unfold(data(5, 1, 4)),
    ),
    Case(
        "single precision",
        ShapeError,
        r"inputs are torch\.float32.*torch\.float64.*inputs\.to\(",
        unfold(LANED.float()),
    ),
    Case(
        "whole numbers for a cell of measurements",
        ShapeError,
        r"inputs are torch\.int64.*torch\.float64",
        unfold(torch.ones(5, 3, 2, dtype=torch.int64)),
    ),
    Case(
        "indices for a cell of measurements",
        ShapeError,
        r"inputs.*torch\.int64",
        train(Stream(torch.arange(6), data(6, 1))),
    ),
    Case(
        "another device",
        ShapeError,
        r"inputs are on meta, the state is on cpu",
        unfold(LANED.to("meta")),
    ),
    Case(
        "a reset on another device of another shape",
        ShapeError,
        r"reset has the shape \[3, 5\].*\[5, 3\]",
        unfold(LANED, reset=torch.zeros(3, 5, dtype=torch.bool)),
    ),
    Case(
        "a reset of numbers",
        ShapeError,
        r"reset must be a bool tensor.*not torch\.int64",
        unfold(LANED, reset=torch.zeros(5, 3, dtype=torch.int64)),
    ),
    Case(
        "lengths of fractions",
        ShapeError,
        r"lengths must be an int64 tensor.*not torch\.float32",
        unfold(LANED, lengths=torch.ones(3)),
    ),
    Case(
        "lengths of another shape",
        ShapeError,
        r"lengths has the shape \[2\], expected \[3\]",
        unfold(LANED, lengths=torch.tensor([1, 2])),
    ),
    Case(
        "lengths past the end",
        ShapeError,
        r"between 0 and the 5 steps.*not 1 to 6",
        unfold(LANED, lengths=torch.tensor([1, 6, 5])),
    ),
    Case(
        "a state of another size",
        ShapeError,
        r"state has the shape \[3, 4\].*carries \[3, 3\]",
        unfold(LANED, data(3, 4)),
    ),
    Case(
        "a state of another nesting",
        ShapeError,
        r"state has the shape \(\[3, 3\]\).*carries",
        unfold(LANED, (data(3, 3),)),
    ),
    Case(
        "an initial state of other lanes",
        ShapeError,
        r"initial has the shape \[2, 3\].*3 lane",
        unfold(LANED, initial=data(2, 3)),
    ),
    Case(
        "a state of another dtype",
        BpttError,
        r"state.*torch\.float32.*torch\.float64",
        unfold(LANED, data(3, 3).float()),
    ),
    Case("a state that is no tensor", BpttError, r"state.*(float|3\.0)", train(state=3.0)),
    Case(
        "a given state for batches",
        OptionError,
        r"a given state has no place",
        train(ragged([4, 3], batch=2), state=data(2, 3)),
    ),
    Case(
        "a state of other lanes for a pass",
        ShapeError,
        r"state has the shape \[1, 3\].*2 lane",
        train(state=data(1, 3)),
    ),
    Case(
        "a step with time",
        ShapeError,
        r"one step's input \[lane, 2\], not \[5, 3, 2\]",
        lambda net: net.step(LANED),
    ),
    Case(
        "a step without lanes", ShapeError, r"\[lane, 2\], not \[2\]", lambda net: net.step(data(2))
    ),
    Case(
        "a step in single precision",
        BpttError,
        r"torch\.float32.*torch\.float64",
        lambda net: net.step(LANED[0].float()),
    ),
]


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


CASES = OPTIONS + DATA + UNFOLDING + FUNCTIONS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_before_any_work(case: Case) -> None:
    net = case.net()
    before = weights(net)
    with pytest.raises(BpttError, match=f"(?s){case.message}") as found:
        case.act(net)
    assert isinstance(found.value, case.error)
    assert len(str(found.value)) < 500
    assert_same(weights(net), before, 0.0)
    assert all(p.grad is None for p in net.parameters())


def test_the_table_is_long_enough_and_names_every_case_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_every_error_is_of_the_base_class_and_of_pythons_own_kind() -> None:
    for error, kind in (
        (OptionError, ValueError),
        (ShapeError, ValueError),
        (DataError, ValueError),
        (CellError, TypeError),
        (bptt.NonFiniteError, ArithmeticError),
    ):
        assert issubclass(error, BpttError)
        assert issubclass(error, kind)
