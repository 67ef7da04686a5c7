"""Elementary functions of the core: accuracy in ulp, tails, and instructions on special values.

The exhaustive check over all float32 numbers is a program of its own, `native/tests/accuracy.cpp`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bptt import _core

from .oracle import UNARY

LD = np.longdouble
MOST_ULP = 4.0
WIDE = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 21)))),
    "reciprocal": lambda x: 1 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-45,
    -1e-45,
    1e-310,
    1e38,
    -1e38,
    20.0,
    20.1,
    0.5,
    -3.0,
]


def apply(name: str, x: np.ndarray) -> np.ndarray:
    out = np.full_like(x, 7)
    _core.elementwise(name, x, out)
    return out


def samples(dtype: str) -> np.ndarray:
    g = np.random.default_rng(0)
    info = np.finfo(dtype)
    ranges = [(-2, 2), (-20, 20), (-110, 110), (-800, 800)]
    plain = np.concatenate([g.uniform(a, b, 20000) for a, b in ranges])
    exponents = g.uniform(float(info.minexp) - 20, float(info.maxexp), 40000)
    return np.concatenate([plain, np.copysign(np.exp2(exponents), g.normal(size=40000))]).astype(
        dtype
    )


def worst_ulp(y: np.ndarray, exact: np.ndarray) -> float:
    """Largest error of normal results, in units of the exact result's last place."""
    rounded = exact.astype(y.dtype)
    normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(y.dtype).tiny) & np.isfinite(y)
    return float(np.max(np.abs((y[normal] - exact[normal]) / np.spacing(np.abs(rounded[normal])))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(WIDE))
@pytest.mark.usefixtures("isa")
def test_within_four_ulp(name: str, dtype: str) -> None:
    if np.finfo(LD).nmant <= np.finfo(dtype).nmant:
        pytest.skip("no wider floating-point type on this platform")
    x = samples(dtype)
    with np.errstate(all="ignore"):
        exact = WIDE[name](x.astype(LD))
        rounded = exact.astype(dtype)
    y = apply(name, x)
    assert worst_ulp(y, exact) <= MOST_ULP
    tiny = np.finfo(dtype).tiny
    small = np.abs(rounded) < tiny
    assert np.all(np.abs(y[small] - rounded[small]) <= tiny)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    huge = np.isinf(rounded)
    assert np.all((y[huge] == rounded[huge]) | (np.abs(y[huge]) > 0.999 * np.finfo(dtype).max))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("isa")
def test_erf(dtype: str) -> None:
    x = samples(dtype)[::7].copy()
    exact = np.array([math.erf(v) for v in x.tolist()])
    assert worst_ulp(apply("erf", x), exact) <= MOST_ULP


TORCH = {name: getattr(torch, name, None) for name in UNARY} | {
    "copy": torch.clone,
    "softplus": torch.nn.functional.softplus,
    "not": lambda x: (x == 0).to(x.dtype),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(UNARY))
@pytest.mark.usefixtures("isa")
def test_special_values_are_as_in_pytorch(name: str, dtype: str) -> None:
    """At every position of a vector, and where the width leaves a rest."""
    with np.errstate(all="ignore"):
        x = np.array(SPECIAL * 3, dtype=dtype)
    for width in (len(x), 5, 1):
        want = TORCH[name](torch.from_numpy(x[:width])).numpy()
        tiny = float(np.finfo(dtype).tiny)
        np.testing.assert_allclose(apply(name, x[:width]), want, rtol=1e-6, atol=tiny)


@pytest.mark.parametrize(
    "name", ["minimum", "maximum", "pow", "gt", "ge", "lt", "le", "eq", "ne", "and", "or", "div"]
)
@pytest.mark.usefixtures("isa")
def test_binary_special_values_are_as_in_pytorch(name: str) -> None:
    a, b = (torch.tensor(x, dtype=torch.float64).flatten() for x in np.meshgrid(SPECIAL, SPECIAL))
    torch_name = {"and": "logical_and", "or": "logical_or"}.get(name, name)
    want = getattr(torch, torch_name)(a, b).to(torch.float64)
    n = len(a)
    program = _core.Program(
        dtype="float64",
        reverse=False,
        states=[n],
        units=[n, n],
        instructions=[(name, ("next", 0, 0, n), ("unit", 0, 0, n), ("unit", 1, 0, n))],
    )
    states = torch.zeros(2, 1, n, dtype=torch.float64)
    program.forward(1, 1, [states], units=[a, b])
    torch.testing.assert_close(states[1, 0], want, equal_nan=True)


@pytest.mark.parametrize("name", ["sum", "amax", "dot"])
@pytest.mark.usefixtures("isa")
def test_reductions_let_nan_through(name: str) -> None:
    for n in (1, 3, 8, 33, 100):
        for position in {0, n // 2, n - 1}:
            x = torch.zeros(1, n)
            x[0, position] = math.nan
            program = _core.Program(
                dtype="float32",
                reverse=False,
                states=[1],
                rows=[n],
                instructions=[(name, ("next", 0, 0, 1), *[("row", 0, 0, n)] * _core.OPCODES[name])],
            )
            states = torch.zeros(2, 1, 1)
            program.forward(1, 1, [states], rows=[x])
            assert states[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(1, 64, 192), (1, 5, 7), (3, 17, 33), (7, 300, 1), (33, 130, 70)]
)
@pytest.mark.usefixtures("isa")
def test_product(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    rows, k, n = shape
    g = torch.Generator().manual_seed(0)
    a = torch.randn(rows, k, generator=g, dtype=dtype)
    for matrix in (torch.randn(k, n, generator=g, dtype=dtype), torch.randn(n, k, dtype=dtype).t()):
        out = torch.empty(rows, n, dtype=dtype)
        _core.multiply(a, matrix, out)
        bound = 4 * k * torch.finfo(dtype).eps * (a.double().abs() @ matrix.double().abs())
        assert torch.all((out - a.double() @ matrix.double()).abs() <= bound)
