"""Options of methods, cells and networks that are refused."""

from __future__ import annotations

import torch
from torch import nn

import bptt
from bptt import CellError, OptionError

from ..helpers import CELLS, Network
from .case import LANED, Case, option, unfold

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
