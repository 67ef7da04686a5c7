"""RNN, GRU and LSTM in JAX as one would write them to be fast: the input projection over all steps
at once, `lax.scan` over the recurrence, forward and backward in one jitted call. PyTorch's
parameters and gate orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Weights = dict[str, Any]


def _rnn(w: Weights, carry: Any, u: Any) -> tuple[Any, Any]:
    h = jnp.tanh(u + carry @ w["weight_hh"].T + w["bias_hh"])
    return h, h


def _gru(w: Weights, carry: Any, u: Any) -> tuple[Any, Any]:
    v = carry @ w["weight_hh"].T + w["bias_hh"]
    ur, uz, un = jnp.split(u, 3, axis=1)
    vr, vz, vn = jnp.split(v, 3, axis=1)
    r, z = jax.nn.sigmoid(ur + vr), jax.nn.sigmoid(uz + vz)
    n = jnp.tanh(un + r * vn)
    h = (1 - z) * n + z * carry
    return h, h


def _lstm(w: Weights, carry: Any, u: Any) -> tuple[Any, Any]:
    h, c = carry
    i, f, g, o = jnp.split(u + h @ w["weight_hh"].T + w["bias_hh"], 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


STEPS = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def forward_backward(
    kind: str, weights: dict[str, np.ndarray], inputs: np.ndarray, seed: np.ndarray
) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """A call that gives outputs [time, lane, hidden] and the gradient of Σ outputs·seed."""
    step = STEPS[kind]
    hidden = weights["weight_hh"].shape[1]
    lanes = inputs.shape[1]

    def outputs(w: Weights, x: Any) -> Any:
        u = x @ w["weight_ih"].T + w["bias_ih"]
        zero = jnp.zeros((lanes, hidden), x.dtype)
        start = (zero, zero) if kind == "LSTM" else zero
        return jax.lax.scan(lambda carry, u: step(w, carry, u), start, u)[1]

    @jax.jit
    def both(w: Weights, x: Any, g: Any) -> tuple[Any, Any]:
        out, back = jax.vjp(lambda w: outputs(w, x), w)
        return out, back(g)[0]

    w = {name: jnp.asarray(value) for name, value in weights.items()}
    x, g = jnp.asarray(inputs), jnp.asarray(seed)
    return lambda: jax.block_until_ready(both(w, x, g))
