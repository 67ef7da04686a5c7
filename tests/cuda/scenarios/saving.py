"""Checkpoints, and where they go on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from torch import nn

import bptt

from .shared import (
    CPU,
    METHODS,
    Device,
    Noisy,
    differ,
    drawn,
    network,
    scenario,
    series,
    trained,
)


def _resumed(device: Device, then: Device, method: Callable[[], Any], **options: Any) -> Any:
    """Three epochs, of which the last two are made by a run that goes on."""
    with tempfile.TemporaryDirectory() as folder:
        first = network(device, **options)
        shared: dict[str, Any] = {"checkpoint": folder, "clip": 1.0, "validation": 0.2, "seed": 2}
        trained(first, series(30), method=method(), epochs=1, **shared)
        second = network(then, **options)
        return trained(second, series(30), method=method(), epochs=3, resume=True, **shared)


@scenario
def resume(device: Device) -> Any:
    found = {}
    for name in ("full", "truncated, stride", "truncated, stored", "rtrl"):
        whole = trained(
            network(device),
            series(30),
            method=METHODS[name](),
            epochs=3,
            clip=1.0,
            validation=0.2,
            seed=2,
        )
        broken = _resumed(device, device, METHODS[name])
        assert differ(whole, broken, 1e-9) is None, f"{name}: {differ(whole, broken, 1e-9)}"
        found[name] = broken
    return found


@scenario
def resume_elsewhere(device: Device) -> Any:
    """A checkpoint of a GPU is taken up on the CPU, and the other way round."""
    return [
        _resumed(device, CPU, METHODS["truncated, stride"]),
        _resumed(CPU, device, METHODS["truncated, stride"]),
    ]


class _Enough(bptt.StoppingCriterion):
    """Ends a run in the middle of an epoch, as a kill would."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def after_update(self, progress: bptt.Progress) -> str | None:
        return "enough" if progress.updates == self.updates else None


@scenario
def resume_within_an_epoch(device: Device) -> Any:
    """With random numbers of the device's own: its generator is saved and put back."""

    def run(folder: str | None, limit: int, again: bool) -> Any:
        net = drawn(lambda: bptt.Network(Noisy(), nn.Linear(4, 2)), device)
        assert isinstance(net, bptt.Network)
        return trained(
            net,
            series(26),
            method=bptt.Truncated(6, 3, context="recomputed"),
            epochs=2,
            seed=4,
            stop=_Enough(limit),
            checkpoint=None if folder is None else bptt.Checkpoint(folder, every=3),
            resume=again,
        )

    with tempfile.TemporaryDirectory() as folder:
        run(folder, 11, False)
        broken, whole = run(folder, 10**6, True), run(None, 10**6, False)
    assert differ(whole, broken, 1e-9) is None, differ(whole, broken, 1e-9)
    return []


# -- online ------------------------------------------------------------------------------------
