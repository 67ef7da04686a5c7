"""Series and options that the tests share."""

import numpy as np

from bptt.forecasting import Series


def made(target, inputs=None, names=()):
    """A `Series` of arrays."""
    target = np.asarray(target, dtype=np.float64)
    inputs = np.empty((len(target), 0)) if inputs is None else np.asarray(inputs, dtype=np.float64)
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


FAST = {"epochs": 2, "hidden": 4, "depth": 10, "stride": 10}
