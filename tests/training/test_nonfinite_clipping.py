"""Gradients are clipped by value where they are finite, and their norm is that of one update."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import bptt

from .fragile import data, fit, network, weights


class TestClipping:
    def test_by_value_every_number_is_bounded(self) -> None:
        net = network()
        before = weights(net)
        optimizer = torch.optim.SGD(net.parameters(), 1.0)
        fit(net, data(), method=bptt.Full(), clip_value=1e-3, optimizer=optimizer)
        moved = (weights(net) - before).abs()
        assert float(moved.max()) <= 1e-3 * (1 + 1e-3)
        assert int((moved > 0.9e-3).sum()) > 1

    def test_an_infinite_gradient_is_not_clipped_but_withheld(self) -> None:
        net = network()
        net.cell.weight_hh.register_hook(lambda gradient: gradient / 0)
        before = weights(net)
        with pytest.raises(bptt.NonFiniteError):
            fit(net, data(), clip_value=1.0)
        assert torch.equal(weights(net), before)

    def test_the_history_has_the_norm_before(self) -> None:
        plain, clipped = network(), network()
        none = torch.optim.SGD(plain.parameters(), 0.0)
        also = torch.optim.SGD(clipped.parameters(), 0.0)
        one = fit(plain, data(), optimizer=none)
        two = fit(clipped, data(), optimizer=also, clip_value=1e-4)
        assert one.epochs[0].gradient_norm == two.epochs[0].gradient_norm

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"clip": 1.0, "clip_value": 1.0}, "not both"),
            ({"clip_value": 0.0}, "clip_value must be above 0"),
            ({"clip_value": math.nan}, "clip_value must be above 0"),
            ({"clip_value": 1.0, "optimizer": torch.optim.LBFGS}, "clip_value does not go with"),
            ({"on_nonfinite": "ignore"}, "on_nonfinite='ignore' is unknown"),
            ({"nonfinite_limit": 0}, "nonfinite_limit must be at least 1"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(bptt.OptionError, match=message):
            fit(network(), data(), **options)


def test_gradients_that_no_optimizer_holds_do_not_pile_up() -> None:
    """The norm is that of one update, also where the optimizer trains but a part."""
    net = network()
    norms = []

    def watch(progress: bptt.Progress) -> None:
        norms.append(progress.gradient_norm)

    watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
    still = torch.optim.SGD(net.readout.parameters(), 0.0)
    fit(net, data(), method=bptt.Full(), optimizer=still, epochs=3, callbacks=[watch])
    assert norms[0] == norms[1] == norms[2]
