"""Series, options and forecasters that the tests share."""

import numpy as np
import torch

from bptt.forecasting import Forecaster, Linear, Options, Scaling, Series, Split, plan, train
from bptt.forecasting.linear._linear import Part
from bptt.forecasting.model._forecaster import Reader
from bptt.forecasting.model._network import build

FAST = {"cell": "gru", "epochs": 2, "hidden": 4, "depth": 10, "stride": 10}


def made(target, inputs=None, names=None):
    """A `Series` of arrays."""
    target = np.asarray(target, dtype=np.float64)
    inputs = np.empty((len(target), 0)) if inputs is None else np.asarray(inputs, dtype=np.float64)
    names = [f"u{i}" for i in range(inputs.shape[1])] if names is None else names
    axis = np.arange(1.0, len(target) + 1)
    return Series(inputs, target, tuple(names), "y", "made", axis)


def driven(rows=120, seed=0):
    """An input and a target that answers it two steps later."""
    random = np.random.default_rng(seed)
    u = random.normal(size=rows)
    y = np.zeros(rows)
    for t in range(2, rows):
        y[t] = 0.6 * y[t - 1] + np.tanh(u[t - 2]) + 0.05 * random.normal()
    return made(50 + 10 * y, u[:, None], ("u",))


def ar2(rows, noise, seed=0):
    """y(t) = 0.3 + 1.2 y(t−1) − 0.8 y(t−2), and noise."""
    random = np.random.default_rng(seed)
    y = np.zeros(rows)
    y[:2] = 1.0, 0.5
    for t in range(2, rows):
        y[t] = 0.3 + 1.2 * y[t - 1] - 0.8 * y[t - 2] + noise * random.normal()
    return y


def walk(rows, seed=0):
    """The sum of independent steps."""
    return 100 + np.random.default_rng(seed).normal(size=rows).cumsum()


def quick(series, missing="refuse", **given):
    """A result, in little time."""
    return train(plan(series, Options(**{**FAST, **given}), missing), progress=False)


def drawn(seed=0, columns=1, horizon=1, seasons=(), simulate=False, cell="gru", bound=1e6):
    """A forecaster whose weights, of the linear model and of the network, are random numbers."""
    random = np.random.default_rng(seed)
    width = columns + (not simulate)
    parts = [
        Part(transform, center, 2.0, random.normal(size=(order, width)) / (order * width), 0.1, 0.5)
        for transform, center, order in (("none", 3.0, 2), ("root", 1.5, 5))
    ]
    linear = Linear("drawn", tuple(parts), simulate, bound, 0.0, 10.0)
    scaling = Scaling((0.5,) * columns, (2.0,) * columns, 4.0, 1.5)
    reader = Reader(scaling, linear, horizon, tuple(seasons), simulate)
    options = Options(simulate=simulate, horizon=horizon, cell=cell, hidden=3)
    features = reader(np.zeros((1, columns)), np.zeros(1)).shape[1]
    network = build(options, features)
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return Forecaster(network, reader, 0.7, options, tuple(f"u{i}" for i in range(columns)), "y")


def positive(rows, seed=0, missing=0.0, columns=1):
    """A series above 0 of no structure, with a share of missing targets."""
    random = np.random.default_rng(seed)
    target = 5 + 2 * random.uniform(-1, 1, size=rows).cumsum() / rows**0.5
    target[random.uniform(size=rows) < missing] = np.nan
    return made(target, random.normal(size=(rows, columns)))


def at(train, fitted, total, horizon=1):
    """One series, split there."""
    return Split.at((train, fitted, total), horizon=horizon)
