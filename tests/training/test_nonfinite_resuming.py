"""A broken run in which something was not finite goes on as one that never was broken."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bptt
from bptt.training import _nonfinite

from .fragile import METHODS, Fragile, data, fit, network, weights


class TestResuming:
    @pytest.mark.parametrize("policy", ["skip", "rollback"])
    @pytest.mark.parametrize("method", ["carried", "recomputed", "stored"])
    def test_broken_and_mended_it_is_as_never_broken(
        self, method: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_nonfinite, "EVERY", 4)

        class Died(Exception):
            pass

        def run(die: int | None = None, **more: Any) -> tuple[Tensor, Any]:
            net = network(Fragile)

            def callback(progress: bptt.Progress) -> None:
                if progress.updates == die:
                    raise Died

            callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
            history = fit(
                net,
                data((17, 1), (31, 0)),
                method=METHODS[method](),
                epochs=2,
                on_nonfinite=policy,
                nonfinite_limit=50,
                callbacks=[callback],
                optimizer=torch.optim.Adam(net.parameters(), 0.01),
                **more,
            )
            epochs = [(e.loss, e.withheld, e.updates, e.learning_rate) for e in history.epochs]
            return weights(net), epochs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bptt.NonFiniteWarning)
            expected, epochs = run()
            assert sum(e[1] for e in epochs) > 2
            for die in (2, 5, 9):
                saving = bptt.Checkpoint(tmp_path / f"{die}", every=1, share=math.inf)
                with pytest.raises(Died):
                    run(die, checkpoint=saving)
                found, again = run(checkpoint=saving, resume=True)
                assert torch.equal(found, expected)
                assert again == epochs

    def test_a_run_that_stopped_goes_on_with_another_policy(self, tmp_path: Path) -> None:
        stream = data((17, 1))
        with pytest.raises(bptt.NonFiniteError):
            fit(network(Fragile), stream, checkpoint=tmp_path)
        net = network(Fragile)
        with pytest.warns(bptt.NonFiniteWarning):
            history = fit(net, stream, checkpoint=tmp_path, resume=True, on_nonfinite="skip")
        assert history.epochs[0].withheld
