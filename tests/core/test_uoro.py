"""UORO is `Full` on average, and draws what seed, epoch and place say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bptt

from .helpers import assert_same, data, gradient_of, network, series


@pytest.mark.parametrize(
    ("kind", "stride"),
    [
        ("Elman", 2),
        ("OwnStart", None),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("LSTM", "Nested", "OwnStart")),
        *(pytest.param(kind, None, marks=pytest.mark.slow) for kind in ("Elman", "LSTM", "Nested")),
    ],
)
def test_uoro_is_full_on_average(kind: str, stride: int | None) -> None:
    """Lanes that are all alike are as many draws; passes with other seeds give the spread of their
    mean."""
    net = network(kind, learn_initial_state=kind != "OwnStart")
    values, targets = data(6, 1, 2), data(6, 1, 1, seed=2)
    expected, _ = gradient_of(bptt.Full(), net, bptt.Stream(values, targets))
    exact = torch.cat([g.flatten() for g in expected.values()]) / 6
    lanes = 32 if kind == "OwnStart" else 256
    alike = bptt.Stream(values.expand(6, lanes, 2), targets.expand(6, lanes, 1))
    draws = []
    for seed in range(48):
        found, _ = gradient_of(bptt.UORO(stride, seed), net, alike)
        draws.append(torch.cat([g.flatten() for g in found.values()]) / (6 * lanes))
    mean, deviation = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 48**0.5
    random = deviation > 1e-12
    assert_same(mean[~random], exact[~random], 1e-9)  # the readout's gradient is not random
    scores = ((mean - exact) / deviation)[random]
    assert float(scores.abs().max()) < 3.5  # 0.1% of Student's t with 47 degrees of freedom
    assert float(deviation.norm()) < 0.05 * float(exact.norm())  # so that a bias would be seen


def test_uoros_draws_depend_on_seed_epoch_and_place_alone() -> None:
    net = network("GRU")

    def of(seed: int, stream: bptt.Stream) -> dict[str, Tensor]:
        return gradient_of(bptt.UORO(2, seed), net, stream)[0]

    stream = series(6)
    first, second = of(1, stream), of(1, stream)
    assert_same(of(1, series(6)), first, 0.0)
    for other in (second, of(2, series(6))):
        assert not torch.allclose(other["cell.weight_hh"], first["cell.weight_hh"], rtol=1e-3)
