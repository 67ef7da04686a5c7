"""Data that a stream or a pass over it refuses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import bptt
from bptt import DataError, OptionError, ShapeError, Stream

from ..helpers import F64, data
from .case import GOOD, LANED, Case, option, train


def with_value(value: float, *place: int) -> Tensor:
    tensor = data(5, 2)
    tensor[place] = value
    return tensor


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
