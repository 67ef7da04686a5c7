"""After an update that is not finite the weights return to earlier ones, at half the rate."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import bptt
from bptt.training import _nonfinite

from .fragile import Fragile, data, fit, keep, network, weights


class TestRollback:
    def test_to_the_beginning_at_half_the_rate(self) -> None:
        net, held = network(Fragile), []
        before = weights(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        rates: list[float] = []

        def watch(progress: bptt.Progress) -> None:
            rates.append(progress.optimizer.param_groups[0]["lr"])

        watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning, match="rolled back, the learning rate halved"):
            fit(
                net,
                data((14, 1), steps=24),
                method=bptt.Truncated(6),
                optimizer=optimizer,
                on_nonfinite="rollback",
                callbacks=[keep(held), watch],
            )
        assert rates == [0.05, 0.05, 0.025]
        # The last window alone, from the beginning of the run and of the lanes.
        alone = network(Fragile)
        assert torch.equal(weights(alone), before)
        cut = next(data((14, 1), steps=24).in_order()).chunk(18, 24)
        fit(
            alone,
            bptt.Stream(cut.inputs, cut.targets),
            method=bptt.Truncated(6),
            optimizer=torch.optim.SGD(alone.parameters(), 0.025, momentum=0.9),
        )
        assert torch.allclose(weights(net), weights(alone), rtol=0, atol=1e-7)

    def test_it_returns_so_many_updates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_nonfinite, "EVERY", 4)
        net, held = network(Fragile), []
        stream = data((36, 1), steps=60)
        with pytest.warns(bptt.NonFiniteWarning):
            fit(
                net,
                stream,
                method=bptt.Truncated(3),
                optimizer=torch.optim.SGD(net.parameters(), 0.05),
                on_nonfinite="rollback",
                callbacks=[keep(held)],
            )
        # Twelve updates were made; copies were kept after 8 and 12, and the older one is taken.
        alone = network(Fragile)
        with torch.no_grad():
            position = 0
            for parameter in alone.parameters():
                count = parameter.numel()
                parameter.copy_(held[7][position : position + count].view_as(parameter))
                position += count
        cut = next(stream.in_order()).chunk(39, 42)
        fit(
            alone,
            bptt.Stream(cut.inputs, cut.targets),
            method=bptt.Truncated(3),
            optimizer=torch.optim.SGD(alone.parameters(), 0.025),
        )
        assert torch.allclose(held[12], weights(alone), rtol=0, atol=1e-7)

    def test_the_scheduler_goes_on_from_half(self) -> None:
        net = network(Fragile)
        optimizer = torch.optim.SGD(net.parameters(), 0.08)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(
                net,
                data((14, 1)),
                method=bptt.Truncated(10),
                optimizer=optimizer,
                scheduler=scheduler,
                on_nonfinite="rollback",
                epochs=3,
            )
        assert [epoch.learning_rate for epoch in history.epochs] == [0.08, 0.02, 0.005]

    def test_a_rate_too_high_is_found(self) -> None:
        """What stops with one learning rate goes through with less and less of it."""
        torch.manual_seed(0)
        stream = bptt.Stream(100 * torch.randn(300, 1, 1), 100 * torch.randn(300, 1, 1))

        def make() -> tuple[bptt.Network, Any]:
            net = network(lambda: bptt.cells.Elman(1, 4, nonlinearity="relu"))
            return net, torch.optim.SGD(net.parameters(), 1e-2)

        net, optimizer = make()
        with pytest.raises(bptt.NonFiniteError):
            fit(net, stream, optimizer=optimizer, epochs=3)
        net, optimizer = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bptt.NonFiniteWarning)
            options = {"on_nonfinite": "rollback", "nonfinite_limit": 60}
            history = fit(net, stream, optimizer=optimizer, epochs=3, **options)
        assert history.stop_reason == "3 epochs done"
        assert torch.isfinite(weights(net)).all()
