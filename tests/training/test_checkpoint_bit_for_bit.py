"""A run that is broken anywhere and goes on ends as one that never was, bit for bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt

from .broken_runs import OPTIMIZERS, Died, Run, net, timeless, wave


def documents() -> bptt.Stream:
    return bptt.Stream([wave(n) for n in (9, 14, 5, 11)], horizon=1, shuffle=3, batch=2)


def broken_and_mended(make: Callable[[], Run], folder: Path, die: int, **more: Any) -> Any:
    """Die at an update, then go on in new objects; the generator stands elsewhere by then."""
    shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(Died):
        make().fit(folder, die=die, **more)
    second = make()
    torch.manual_seed(1234 + die)
    return second, second.fit(folder, resume=True, **more)


METHODS: dict[str, Callable[[], Any]] = {
    "full": lambda: bptt.Full(),
    "segments": lambda: bptt.Full(segment=7),
    "carried": lambda: bptt.Truncated(9, 4),
    "stored": lambda: bptt.Truncated(9, 4, history="stored"),
    "recomputed": lambda: bptt.Truncated(9, 4, context="recomputed"),
    "sliding": lambda: bptt.SlidingWindow(6),
}


class TestBitForBit:
    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
    @pytest.mark.parametrize("method", METHODS)
    def test_methods_and_optimizers(self, method: str, optimizer: str, tmp_path: Path) -> None:
        def make() -> Run:
            data = lambda: bptt.Stream(wave(40), horizon=1)  # noqa: E731
            options = {"method": METHODS[method], "epochs": 2, "validation": 0.3, "stream": data}
            return Run(OPTIMIZERS[optimizer], **options)

        whole = make()
        history = whole.fit()
        updates = sum(epoch.updates for epoch in history.epochs)
        for every, die in ((3, updates // 2), (1, updates // 2 + 1), (2, updates)):
            second, again = broken_and_mended(make, tmp_path / "run", die, every=every)
            assert torch.equal(second.weights, whole.weights)
            assert timeless(again) == timeless(history)

    @pytest.mark.parametrize("optimizer", ["rmsprop", "adagrad", "rprop", "groups"])
    def test_any_optimizer(self, optimizer: str, tmp_path: Path) -> None:
        def make() -> Run:
            return Run(OPTIMIZERS[optimizer])

        whole = make()
        history = whole.fit()
        second, again = broken_and_mended(make, tmp_path / "run", 20)
        assert torch.equal(second.weights, whole.weights)
        assert timeless(again) == timeless(history)

    @pytest.mark.parametrize("backend", ["eager", "native"])
    def test_executors(self, backend: str, tmp_path: Path) -> None:
        if backend == "native":
            pytest.importorskip("bptt._core")

        def make() -> Run:
            return Run(network=lambda: net(backend=backend, learn_initial_state=True))

        whole = make()
        history = whole.fit()
        second, again = broken_and_mended(make, tmp_path / "run", 17)
        assert torch.equal(second.weights, whole.weights)
        assert timeless(again) == timeless(history)

    @pytest.mark.parametrize(
        "scheduler",
        [
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 2], 0.5),
            lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.3),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
            lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.7**epoch),
            lambda o: torch.optim.lr_scheduler.SequentialLR(
                o,
                [
                    torch.optim.lr_scheduler.ConstantLR(o, 0.1, 2),
                    torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
                ],
                [1],
            ),
        ],
    )
    def test_schedulers(self, scheduler: Callable[[Any], Any], tmp_path: Path) -> None:
        def make() -> Run:
            return Run(scheduler=scheduler, epochs=4)

        whole = make()
        history = whole.fit()
        second, again = broken_and_mended(make, tmp_path / "run", 35)
        assert timeless(again) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    @pytest.mark.parametrize("seed", [None, 11])
    def test_random_numbers(self, seed: int | None, tmp_path: Path) -> None:
        def make() -> Run:
            return Run(network=lambda: net(dropout=0.5), stream=documents, seed=seed)

        whole = make()
        history = whole.fit()
        for die in (1, 2, 3, 5):
            second, again = broken_and_mended(make, tmp_path / "run", die)
            assert torch.equal(second.weights, whole.weights)
            assert timeless(again) == timeless(history)

    def test_random_numbers_of_python_and_numpy(self, tmp_path: Path) -> None:
        def noisy(prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).square() * (1 + random.random() + np.random.rand())

        def make() -> Run:
            random.seed(3)
            np.random.seed(4)
            return Run(loss=noisy)

        whole = make()
        history = whole.fit()
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with pytest.raises(Died):
            make().fit(tmp_path / "run", die=8)
        second = make()
        random.seed(99)
        np.random.seed(98)
        again = second.fit(tmp_path / "run", resume=True)
        assert torch.equal(second.weights, whole.weights)
        assert timeless(again) == timeless(history)

    def test_best_weights_patience_and_validation(self, tmp_path: Path) -> None:
        def make() -> Run:
            return Run(
                OPTIMIZERS["sgd"],
                stop=lambda: bptt.Patience(2, restore_best=True),
                validation=0.3,
                epochs=30,
                scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(
                    o, lambda epoch: 1.0 if epoch < 4 else -2.0
                ),
            )

        whole = make()
        history = whole.fit()
        assert history.restored
        assert 0 < history.best_epoch < len(history) < 30
        updates = sum(epoch.updates for epoch in history.epochs)
        for die in (12, updates - 12, updates):
            second, again = broken_and_mended(make, tmp_path / "run", die)
            assert torch.equal(second.weights, whole.weights)
            assert timeless(again) == timeless(history)

    def test_broken_many_times(self, tmp_path: Path) -> None:
        whole = Run()
        history = whole.fit()
        for die in range(1, sum(e.updates for e in history.epochs), 3):
            with pytest.raises(Died):
                Run().fit(tmp_path, die=die, resume=True)
        last = Run()
        assert timeless(last.fit(tmp_path, resume=True)) == timeless(history)
        assert torch.equal(last.weights, whole.weights)

    def test_with_or_without_checkpoints_nothing_else_changes(self, tmp_path: Path) -> None:
        plain, saved = Run(), Run()
        assert timeless(plain.fit()) == timeless(saved.fit(tmp_path))
        assert torch.equal(plain.weights, saved.weights)

    def test_buffers_that_no_state_dict_holds(self, tmp_path: Path) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(5, 1)
                self.register_buffer("scale", torch.ones(()), persistent=False)

            def forward(self, outputs: Tensor) -> Tensor:
                if self.training:
                    self.scale.mul_(0.99)
                return self.scale * self.inner(outputs)

        def make() -> Run:
            return Run(network=lambda: bptt.Network(bptt.cells.GRU(1, 5), Counting()))

        whole = make()
        whole.fit()
        second, _ = broken_and_mended(make, tmp_path / "run", 13)
        assert torch.equal(second.weights, whole.weights)
        assert torch.equal(second.network.readout.scale, whole.network.readout.scale)

    def test_callbacks_with_a_state_go_on(self, tmp_path: Path) -> None:
        class Averaging:
            every = 1

            def __init__(self) -> None:
                self.mean: Tensor | float = 0.0

            def __call__(self, progress: bptt.Progress) -> None:
                last = torch.cat([p.detach().flatten() for p in progress.network.parameters()])
                self.mean = 0.9 * self.mean + 0.1 * last

            def state_dict(self) -> dict[str, Any]:
                return {"mean": self.mean}

            def load_state_dict(self, saved: dict[str, Any]) -> None:
                self.mean = saved["mean"]

        whole, first, second = Averaging(), Averaging(), Averaging()
        Run().fit(callbacks=[whole])
        with pytest.raises(Died):
            Run().fit(tmp_path, die=21, callbacks=[first])
        Run().fit(tmp_path, resume=True, callbacks=[second])
        assert torch.equal(second.mean, whole.mean)
