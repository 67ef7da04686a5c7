"""`Online` whose caller changes the weights between the steps."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import bptt

pytest.importorskip("bptt._core")


@pytest.mark.parametrize("horizon", [0, 1])
@pytest.mark.parametrize(("depth", "stride"), [(6, 1), (4, 3), (4, 4)])
def test_weights_projected_after_each_step(horizon: int, depth: int, stride: int) -> None:
    """A recomputed context goes on with the weights as they are when it is read."""
    series = torch.sin(torch.arange(40.0, dtype=torch.float64) * 0.37)
    method = bptt.Truncated(depth, stride, context="recomputed")

    def network(backend: str) -> bptt.Network:
        torch.manual_seed(0)
        cell, readout = nn.GRUCell(1, 6), nn.Linear(6, 1)
        return bptt.Network(cell.double(), readout.double(), backend=backend)

    def project(trained: bptt.Network) -> None:
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.clamp_(-0.3, 0.3)

    found = []
    for backend in ("auto", "eager"):
        trained = network(backend)
        learner = bptt.Online(
            trained, method, "mse", partial(torch.optim.SGD, lr=0.5), horizon=horizon
        )
        predictions = []
        for value in series:
            predictions.append(learner.step(value, value))
            project(trained)
        assert (learner.reason is None) == (backend == "auto")
        found.append([torch.cat(predictions), *trained.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
    if horizon == 0:
        trained = network("eager")
        project(trained)  # as the learner's were before the first update
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
        stream = bptt.Stream(series[:, None], series[:, None])
        updates = method.updates(trained, "mse", stream)
        for _ in zip(range(learner.updates), updates, strict=False):
            optimizer.step()
            optimizer.zero_grad()
            project(trained)
        torch.testing.assert_close(list(trained.parameters()), found[0][1:], rtol=1e-10, atol=1e-12)
