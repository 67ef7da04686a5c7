"""Inputs and states that an unfolding, a pass or a step refuses."""

from __future__ import annotations

import numpy as np
import torch

from bptt import BpttError, OptionError, ShapeError, Stream

from ..helpers import data, ragged
from .case import GOOD, LANED, Case, train, unfold

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
