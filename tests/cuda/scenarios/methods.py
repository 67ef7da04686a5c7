"""Gradient methods, update by update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bptt

from .shared import (
    CPU,
    METHODS,
    SGD,
    Device,
    gradients,
    here,
    network,
    numbers,
    scenario,
    sequences,
    series,
    trained,
)


def _methods(device: Device, make: Callable[[], bptt.Stream], **options: Any) -> Any:
    found = {}
    for name, method in METHODS.items():
        net = network(device, **options)
        found[name] = trained(net, make(), method=method(), optimizer=SGD)
    return found


@scenario
def methods_on_a_series(device: Device) -> Any:
    return _methods(device, lambda: series(lanes=3, horizon=1, burn_in=1))


@scenario
def methods_on_sequences(device: Device) -> Any:
    return _methods(device, lambda: sequences(lanes=2), learn_initial_state=True)


@scenario
def methods_on_batches(device: Device) -> Any:
    return _methods(device, lambda: sequences(batch=3, shuffle=1))


@scenario
def methods_on_data_of_the_device(device: Device) -> Any:
    return _methods(device, lambda: series(lanes=3, device=device))


@scenario
def methods_of_other_cells(device: Device) -> Any:
    found = {}
    for cell in ("lstm", "own", "stack"):
        for name in ("full in segments", "truncated, recomputed", "rtrl", "uoro"):
            net = network(device, cell, clip_state_gradient=None)
            stream = series(20, lanes=2)
            found[f"{cell}, {name}"] = trained(
                net, stream, method=METHODS[name](), optimizer=SGD, epochs=1
            )
    return found


@scenario
def sliding_window(device: Device) -> Any:
    net = network(device, clip_state_gradient=0.5)
    return trained(net, series(lanes=2, horizon=1), method=bptt.SlidingWindow(4), optimizer=SGD)


@scenario
def focused(device: Device) -> Any:
    net = network(device, "self-recurrent", learn_initial_state=True)
    return trained(net, sequences(lanes=2), method=bptt.Focused(), optimizer=SGD)


@scenario
def plans(device: Device) -> Any:
    plan = bptt.Full(memory="2MB").plan(network(device), series(400))
    assert plan.costs is not None
    assert plan.costs.on_cpu == (device == CPU)
    return [str(bptt.Full(memory="1MB").plan(network(device), series(4000))) != ""]


@scenario
def updates_by_hand(device: Device) -> Any:
    net = network(device)
    stream = series(lanes=2)
    state = numbers(2, 4, seed=5)  # from the CPU, as the data are
    found = []
    for update in bptt.Truncated(8).updates(net, "mse", stream, state):
        again = update.closure()
        assert update.inspect is not None
        seen = update.inspect()
        found.append([update.loss, again, here(update.state, device), seen.norms, seen.losses])
    return [found, gradients(net)]


# -- training ----------------------------------------------------------------------------------
