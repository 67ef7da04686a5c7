"""Streams: tensors, iterators and files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bptt

from .shared import (
    CPU,
    FLOAT,
    Device,
    network,
    numbers,
    scenario,
    series,
    trained,
)


@scenario
def streams_on_other_devices(device: Device) -> Any:
    """The network decides where the work is done, and data go to it from wherever they are."""
    found = []
    for place in (CPU, device):
        for of_network in (CPU, device):
            net = network(of_network)
            stream = series(lanes=2, device=place)
            found.append(trained(net, stream, method=bptt.Truncated(5), validation=series(9)))
    return found


@scenario
def streams_of_mixed_tensors(device: Device) -> Any:
    stream = bptt.Stream(numbers(20, 3).to(device), numbers(20, 2), mask=torch.ones(20) > 0)
    return trained(network(device), stream)


@scenario
def stream_from_iterator(device: Device) -> Any:
    rows, goals = numbers(16, 3), numbers(16, 2, seed=8)
    found = []
    for place in (CPU, device):
        for option in (None, device):
            pairs = partial(_pairs, rows.to(place), goals.to(place))
            stream = bptt.Stream.from_iterator(pairs, paired=True, dtype=FLOAT, device=option)
            found.append(trained(network(device), stream, method=bptt.Truncated(4, 2)))
    return found


def _pairs(rows: Tensor, goals: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Steps of which the last ones have no target."""
    return zip(rows, [*goals[:10], *[None] * (len(rows) - 10)], strict=True)


@scenario
def stream_from_files(device: Device) -> Any:
    import numpy as np

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, torch.cat([numbers(90, 3), numbers(90, 2, seed=8)], 1).numpy())
        for place in (None, device):
            stream = bptt.Stream.from_files(
                path,
                inputs=[0, 1, 2],
                targets=[3, 4],
                horizon=1,
                lanes=2,
                dtype=FLOAT,
                device=place,
                chunk=16,
            )
            for method in (bptt.Truncated(24, 12), bptt.Full(segment=17)):
                found.append(trained(network(device), stream, method=method, epochs=1))
            plan = bptt.Full(memory="4MB").plan(network(device), stream)
            assert plan.costs is not None
    return found


# -- going on ----------------------------------------------------------------------------------
