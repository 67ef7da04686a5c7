"""Running a `Case` on the native core."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields

import numpy as np
import torch

from bptt import _core

from .oracle import Case, interpret

COMMON = ("time", "rows", "units", "matrices", "initial", "reset", "lengths")
REVERSE = ("clip", "final_grads", "step_grads", "start_grads", "initial_grads")
VARIANTS = [name for name, usable in _core.variants().items() if usable]

Wrap = Callable[[np.ndarray], object]


def spaced(x: np.ndarray) -> torch.Tensor:
    """The same array as a slice of a larger one: strides that are no product of sizes."""
    if x.dtype == bool or x.ndim < 2:
        return torch.from_numpy(x)
    big = torch.full([n + 3 for n in x.shape], 7, dtype=torch.from_numpy(x).dtype)
    view = big[tuple(slice(2, 2 + n) for n in x.shape)]
    view.copy_(torch.from_numpy(x))
    return view


def run(
    case: Case,
    wrap: Wrap = torch.from_numpy,
    threads: int = 1,
    program: _core.Program | None = None,
) -> Case:
    """A copy of the case after the core ran it; the case itself is untouched."""
    done = deepcopy(case)
    given: dict[int, tuple[np.ndarray, object]] = {}

    def convert(value: object) -> object:
        if isinstance(value, list):
            return tuple(convert(x) for x in value)
        if not isinstance(value, np.ndarray):
            return value
        given[id(value)] = (value, wrap(value))
        return given[id(value)][1]

    program = program or _core.Program(**case.program)
    names = COMMON + (REVERSE if case.program["reverse"] else ())
    arguments = {name: convert(getattr(done, name)) for name in names}
    states = convert(done.states)
    call = program.reverse if case.program["reverse"] else program.forward
    call(case.steps, case.batch, states, threads=threads, **arguments)
    for original, wrapped in given.values():
        original[...] = np.asarray(wrapped)
    return done


def expected(case: Case) -> Case:
    done = deepcopy(case)
    interpret(done)
    return done


def outputs(case: Case) -> dict[str, np.ndarray]:
    """Everything that a run may write, by name."""
    named = {}
    for f in fields(case):
        value = getattr(case, f.name)
        if isinstance(value, list):
            named.update({f"{f.name}[{i}]": x for i, x in enumerate(value) if x is not None})
    return named


def assert_close(got: Case, want: Case, tolerance: float) -> None:
    for name, x in outputs(want).items():
        np.testing.assert_allclose(
            outputs(got)[name], x, rtol=tolerance, atol=tolerance, err_msg=name
        )


def assert_same(got: Case, want: Case) -> None:
    for name, x in outputs(want).items():
        assert outputs(got)[name].tobytes() == x.tobytes(), name
