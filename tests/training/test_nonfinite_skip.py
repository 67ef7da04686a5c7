"""An update that is not finite is skipped, and training goes on."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

import bptt

from .fragile import METHODS, Exploding, Fragile, data, fit, keep, network, weights


class TestSkip:
    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    @pytest.mark.parametrize("method", ["carried", "recomputed", "stored"])
    def test_training_goes_on_and_the_lane_starts_anew(self, method: str, poison: float) -> None:
        net, held = network(lambda: Fragile(poison)), []
        with pytest.warns(bptt.NonFiniteWarning, match=r"lane\(s\) 1.*skipped"):
            history = fit(
                net,
                data((17, 1)),
                method=METHODS[method](),
                on_nonfinite="skip",
                callbacks=[keep(held)],
            )
        # Two windows hold step 17: one update each is withheld (three, where all are replayed).
        assert 1 <= history.epochs[0].withheld <= 3
        assert history.epochs[0].updates == len(held) == 13 - history.epochs[0].withheld
        assert all(torch.isfinite(one).all() for one in held)

    def test_after_the_skip_a_lane_is_as_if_it_began_there(self) -> None:
        """Carried: window i unfolds the steps 3i to 3i+5; step 17 lies in the windows 4 and 5."""
        seen: list[Any] = []
        net = network(Fragile)

        def watch(progress: bptt.Progress) -> None:
            assert progress.update is not None
            seen.append(progress.update)

        watch.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        still = torch.optim.SGD(net.parameters(), 0.0)
        with pytest.warns(bptt.NonFiniteWarning):
            fit(net, data((17, 1)), on_nonfinite="skip", callbacks=[watch], optimizer=still)
        after = next(update for update in seen if update.start == 18)
        chunk = next(data((17, 1)).in_order()).chunk(18, 24)
        _, alone = net.unfold(chunk.inputs)
        _, whole = net.unfold(next(data().in_order()).chunk(0, 24).inputs)
        assert torch.allclose(after.state[1], alone[1], rtol=0, atol=1e-7)
        assert torch.allclose(after.state[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-7)

    def test_the_limit(self) -> None:
        net = network(Fragile)
        marks = [(step, 0) for step in (3, 13, 23, 33)]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises(bptt.NonFiniteError, match=r"number 4 .* nonfinite_limit is 3"):
                fit(net, data(*marks), on_nonfinite="skip", nonfinite_limit=3)
        assert len([w for w in said if w.category is bptt.NonFiniteWarning]) == 3
        assert torch.isfinite(weights(net)).all()

    def test_an_optimizer_that_broke_forgets(self) -> None:
        net = network()
        optimizer = torch.optim.Adagrad(net.parameters(), 0.05)
        sums = optimizer.state[net.cell.weight_hh]["sum"]

        def break_it(progress: bptt.Progress) -> None:
            if progress.updates == 3:
                sums.fill_(-1.0)  # the next step takes its root

        break_it.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.warns(bptt.NonFiniteWarning, match="the optimizer's step"):
            history = fit(
                net, data(), optimizer=optimizer, on_nonfinite="skip", callbacks=[break_it]
            )
        assert torch.isfinite(weights(net)).all()
        assert history.epochs[0].withheld >= 1

    def test_an_optimizer_that_broke_once(self) -> None:
        net = network()
        optimizer = Exploding(net.parameters(), 0.05, momentum=0.5)
        optimizer.poison = math.nan
        with pytest.warns(bptt.NonFiniteWarning, match="the optimizer's step"):
            history = fit(net, data(), optimizer=optimizer, on_nonfinite="skip")
        assert torch.isfinite(weights(net)).all()
        assert history.epochs[0].withheld == 1

    def test_an_epoch_without_an_update(self) -> None:
        net = network(Fragile)
        before = weights(net)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(net, data((5, 0)), method=bptt.Full(), on_nonfinite="skip", epochs=3)
        assert [epoch.updates for epoch in history.epochs] == [0, 0, 0]
        assert all(math.isnan(loss) for loss in history.losses)
        assert torch.equal(weights(net), before)
