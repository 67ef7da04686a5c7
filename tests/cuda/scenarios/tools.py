"""Online learning, diagnoses, comparisons, solvers, and the warning of a device."""

from __future__ import annotations

import warnings
from typing import Any

import torch

import bptt

from .shared import (
    CELLS,
    COMPILED,
    CPU,
    SGD,
    Device,
    drawn,
    here,
    network,
    numbers,
    scenario,
    sequences,
    series,
    trained,
)


@scenario
def online(device: Device) -> Any:
    found = []
    rows, goals = numbers(14, 3), numbers(14, 2, seed=8)
    for options in ({}, {"context": "recomputed"}, {"history": "stored"}):
        for place, horizon in ((CPU, 0), (device, 2)):
            net = network(device)
            learner = bptt.Online(
                net, bptt.Truncated(5, 2, **options), optimizer=SGD, horizon=horizon
            )
            for t in range(8):
                found.append(here(learner.step(rows[t].to(place), goals[t].to(place)), device))
            saved = learner.state_dict()
            other = bptt.Online(
                network(device), bptt.Truncated(5, 2, **options), optimizer=SGD, horizon=horizon
            )
            other.load_state_dict(saved)
            for t in range(8, 14):
                ours, theirs = (one.step(rows[t], goals[t]) for one in (learner, other))
                assert torch.allclose(ours, theirs, rtol=1e-9)
            found.append(list(net.parameters()))
            native = device == CPU and COMPILED and "history" not in options
            assert learner.reason is None or not native
    return found


@scenario
def online_lanes_and_numbers(device: Device) -> Any:
    learner = bptt.Online(network(device), bptt.SlidingWindow(4), optimizer=SGD, lanes=2)
    found = [learner.step(numbers(2, 3, seed=t), numbers(2, 2, seed=t)) for t in range(12)]
    import numpy as np

    single = bptt.Online(network(device), bptt.Truncated(3), optimizer=SGD)
    found += [single.step([0.1, 0.2, t / 10], np.asarray([0.5, t / 10])) for t in range(9)]
    return here(found, device)


# -- looking -----------------------------------------------------------------------------------


@scenario
def diagnose(device: Device) -> Any:
    found = []
    for stream in (series(48, lanes=2), sequences(lanes=2), series(44).split(0.5)[1]):
        parts = ("reach", "dynamics", "surface") if stream.steps > 40 else ("reach",)
        net = network(device, learn_initial_state=True)
        seen = bptt.diagnose(
            net,
            stream,
            parts=parts,
            anchors=4,
            points=3,
            grid=3,
            method=bptt.Truncated(4) if stream.steps > 40 else None,
        )
        assert str(seen)
        assert seen.reach is not None
        found.append([torch.as_tensor(seen.reach.mean), seen.reach.fallen or 0])
        if seen.dynamics is not None:
            found.append(torch.as_tensor(seen.dynamics.exponents.copy()))
    return found


@scenario
def compare(device: Device) -> Any:
    result = bptt.compare(
        network(device),
        series(20, lanes=2, horizon=1),
        ("full", "truncated", "sliding-window", "rtrl", "uoro"),
        budget=100,
        starts=1,
        depth=4,
        progress=False,
    )
    assert str(result)
    return []  # the starts are drawn on the device


@scenario
def solvers(device: Device) -> Any:
    try:
        import cma  # noqa: F401
        import scipy  # noqa: F401
    except ImportError:
        return []
    optimize = bptt.optimize
    found = []
    for optimizer in (
        optimize.SciPy("L-BFGS-B", iterations=3),
        optimize.SciPy("trust-ncg", iterations=2),
        optimize.LeastSquares("trf", evaluations=3),
    ):
        found.append(trained(network(device, "elman"), series(30), optimizer=optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cmaes = optimize.CMAES(seed=1, population=4)
        trained(network(device, "elman"), series(), optimizer=cmaes)
    return found


@scenario
def warned_once(device: Device) -> Any:
    """The Python loop is slow on a GPU: said once, and on the CPU only of each kind of cell where
    the core is missing."""
    from bptt import unfold as module  # noqa: F401

    warned = _first_warnings(device)
    expected = 1 if device != CPU else 0 if COMPILED else 3
    assert len(warned) == expected, warned
    assert all(("the compiled core" if device == CPU else str(device)) in text for text in warned)
    return []


def _first_warnings(device: Device) -> list[str]:
    import importlib

    told = importlib.import_module("bptt.unfold")
    told._SLOW.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for name in ("gru", "our gru", "own"):
            cell = drawn(CELLS[name], device)
            for _ in range(2):
                bptt.unfold(cell, numbers(6, 5, 3).to(device))
            bptt.unfold(cell, numbers(6, 5, 3).to(device), backend="eager")
        layer = drawn(lambda: bptt.nn.GRU(3, 4), device)
        layer(numbers(6, 5, 3).to(device))
    return [str(w.message) for w in found if "Python loop" in str(w.message)]
