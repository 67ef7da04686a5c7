"""Both pseudocodes of backpropagation through time, transcribed to NumPy line by line.

Here f is Elman's ``tanh(W a + b + U x + c)`` and g is linear, ``V s + d``. The unfolded network
really contains k separate instances of f; the backward pass is derived by hand. The cost of a
pattern is the mean of e² over the features of y. Two slips are read by their sense: t stops where
y[t+k] still exists, and ``x = f(x)`` in the older text is ``x = f(x, a[t])``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]

INSTANCE = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")


def f(w: Weights, x: Array, a: Array) -> Array:
    """One instance of f."""
    return np.tanh(w["weight_ih"] @ a + w["bias_ih"] + w["weight_hh"] @ x + w["bias_hh"])


def f_backward(w: Weights, x: Array, a: Array, s: Array, ds: Array) -> tuple[Weights, Array]:
    """The gradient of one instance's weights, and of the context it was given."""
    dz = ds * (1.0 - s * s)
    gradient = {
        "weight_ih": np.outer(dz, a),
        "bias_ih": dz,
        "weight_hh": np.outer(dz, x),
        "bias_hh": dz,
    }
    return gradient, w["weight_hh"].T @ dz


def g(w: Weights, s: Array) -> Array:
    """The readout."""
    return w["weight"] @ s + w["bias"]


def back_propagation_through_time(
    a: Array,
    y: Array,
    k: int,
    f_weights: Weights,
    g_weights: Weights,
    rate: float,
    epochs: int,
    combine: str,
) -> Iterator[tuple[Weights, Weights, float]]:
    """Yield the weights of f and g and the pattern's cost after every update.

    ``combine="sum"`` is the newer text, ``"mean"`` the older one.
    """
    n = len(a)
    # Unfold the network to contain k instances of f
    instances = [{name: f_weights[name].copy() for name in INSTANCE} for _ in range(k)]
    readout = {name: value.copy() for name, value in g_weights.items()}
    # do until stopping criterion is met:
    for _ in range(epochs):
        x = np.zeros(f_weights["weight_hh"].shape[0])
        for t in range(n - k):
            # Set the network inputs to x, a[t], a[t+1], ..., a[t+k-1]
            inputs = [a[t + j] for j in range(k)]
            # p := forward-propagate the inputs over the whole unfolded network
            states = [x]
            for instance, one in zip(instances, inputs, strict=True):
                states.append(f(instance, states[-1], one))
            p = g(readout, states[-1])
            # e := y[t+k] - p
            e = y[t + k] - p
            # Back-propagate the error, e, back across the whole unfolded network
            dp = -2.0 * e / len(e)
            readout_gradient = {"weight": np.outer(dp, states[-1]), "bias": dp}
            ds = readout["weight"].T @ dp
            changes: list[Weights] = [{} for _ in range(k)]
            for j in reversed(range(k)):
                gradient, ds = f_backward(instances[j], states[j], inputs[j], states[j + 1], ds)
                changes[j] = {name: -rate * value for name, value in gradient.items()}
            if combine == "sum":
                _update_by_the_sum(instances, changes)
            else:
                _update_apart_and_average(instances, changes)
            for name, value in readout_gradient.items():
                readout[name] = readout[name] - rate * value
            # x := f(x, a[t])
            x = f(instances[0], x, a[t])
            yield dict(instances[0]), dict(readout), float(np.mean(e * e))


def _update_by_the_sum(instances: list[Weights], changes: list[Weights]) -> None:
    """Sum the weight changes in the k instances of f together; update all the weights."""
    for name in INSTANCE:
        total = sum(change[name] for change in changes)
        for instance in instances:
            instance[name] = instance[name] + total


def _update_apart_and_average(instances: list[Weights], changes: list[Weights]) -> None:
    """Update all the weights in the network; then average the weights in each instance of f
    together, so that each f is identical."""
    for instance, change in zip(instances, changes, strict=True):
        for name in INSTANCE:
            instance[name] = instance[name] + change[name]
    for name in INSTANCE:
        average = sum(instance[name] for instance in instances) / len(instances)
        for instance in instances:
            instance[name] = average
