"""A run that is broken anywhere and goes on ends as one that never was, bit for bit."""

from __future__ import annotations

import math
import random
import shutil
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.training import _checkpoint, _store
from bptt.training._history import Epoch

ALWAYS = math.inf


class Died(Exception):
    """As if the process had died: nothing is saved or cleaned up in answer to it."""


class Run:
    """A network, its optimizer and what else `fit` is given, made anew as a new process would."""

    def __init__(self, optimizer: Callable[[Any], Any] | None = None, **options: Any) -> None:
        torch.manual_seed(0)
        self.network = options.pop("network", lambda: net())()
        make = optimizer or (lambda p: torch.optim.Adam(p, 0.01))
        self.optimizer = make(self.network.parameters())
        self.stream = options.pop("stream", lambda: stream())()
        scheduler = options.pop("scheduler", None)
        self.scheduler = scheduler and scheduler(self.optimizer)
        self.options = {k: v() if k in ("stop", "method") else v for k, v in options.items()}

    def fit(self, folder: Path | None = None, die: int | None = None, **more: Any) -> Any:
        options = {"method": bptt.Truncated(9, 4), "epochs": 3, **self.options, **more}
        callbacks = list(options.pop("callbacks", []))
        if die is not None:

            def callback(progress: bptt.Progress) -> None:
                if progress.updates == die:
                    raise Died

            callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
            callbacks.append(callback)
        if folder is not None:
            every = options.pop("every", 1)
            options["checkpoint"] = bptt.Checkpoint(folder, every=every, share=ALWAYS)
        return bptt.fit(
            self.network,
            self.stream,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            callbacks=callbacks,
            progress=False,
            **options,
        )

    @property
    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.network.parameters()])


def net(dropout: float = 0.0, **options: Any) -> bptt.Network:
    options = {"backend": "eager", **options}  # nothing has to be traced
    readout = nn.Sequential(nn.Dropout(dropout), nn.Linear(5, 1)) if dropout else nn.Linear(5, 1)
    return bptt.Network(bptt.cells.GRU(1, 5), readout, **options)


def wave(steps: int = 60) -> Tensor:
    time = torch.arange(steps, dtype=torch.float32)
    return torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time)


def stream(**options: Any) -> bptt.Stream:
    return bptt.Stream(wave(), horizon=1, **options)


def documents() -> bptt.Stream:
    return bptt.Stream([wave(n) for n in (9, 14, 5, 11)], horizon=1, shuffle=3, batch=2)


def timeless(history: bptt.History) -> list[Any]:
    """All of a history that does not come from a clock."""
    clocks = {"seconds", "steps_per_second"}
    epochs = [{k: v for k, v in vars(e).items() if k not in clocks} for e in history.epochs]
    return [{**vars(history), "epochs": epochs}]


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
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "lbfgs": lambda p: torch.optim.LBFGS(
        p, max_iter=3, history_size=4, line_search_fn="strong_wolfe"
    ),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "rprop": lambda p: torch.optim.Rprop(p),
    "groups": lambda p: torch.optim.AdamW([{"params": [q], "lr": 0.01} for q in p]),
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


class TestGoingOn:
    def test_a_finished_run_gives_its_end_again(self, tmp_path: Path) -> None:
        def make() -> Run:
            return Run(stop=lambda: bptt.Patience(9, restore_best=True), validation=0.3)

        first = make()
        history = first.fit(tmp_path)
        second = make()
        again = second.fit(tmp_path, resume=True, callbacks=[_never])
        assert timeless(again) == timeless(history)
        assert [e.seconds for e in again.epochs] == [e.seconds for e in history.epochs]
        assert torch.equal(first.weights, second.weights)

    def test_a_finished_run_goes_on_to_more_epochs(self, tmp_path: Path) -> None:
        whole = Run(epochs=5)
        history = whole.fit()
        Run(epochs=2).fit(tmp_path)
        second = Run(epochs=5)
        assert timeless(second.fit(tmp_path, resume=True)) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_a_run_stopped_within_an_epoch_goes_on_there(self, tmp_path: Path) -> None:
        class After(bptt.StoppingCriterion):
            def __init__(self, updates: int) -> None:
                self.updates = updates

            def after_update(self, progress: bptt.Progress) -> str | None:
                assert progress.update is not None
                return "enough" if progress.updates >= self.updates else None

        whole = Run(stop=lambda: After(10**6))
        history = whole.fit()
        first = Run(stop=lambda: After(20)).fit(tmp_path)
        assert first.stop_reason == "enough"
        twice = Run(stop=lambda: After(20)).fit(tmp_path, resume=True)
        assert timeless(twice) == timeless(first)
        second = Run(stop=lambda: After(10**6))
        assert timeless(second.fit(tmp_path, resume=True)) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_the_time_that_was_spent_counts(self, tmp_path: Path) -> None:
        class Slept(bptt.StoppingCriterion):
            def begin(self, progress: bptt.Progress) -> None:
                self.seen: list[float] = []

            def after_update(self, progress: bptt.Progress) -> str | None:
                self.seen.append(progress.elapsed)
                return None

        with pytest.raises(Died):
            Run(stop=Slept).fit(tmp_path, die=9)
        saved = _store.newest(tmp_path).content.plain["progress"]["elapsed"]
        slept = Slept()
        slept.begin(None)  # type: ignore[arg-type]  # it looks at no state
        Run(stop=lambda: slept).fit(tmp_path, resume=True)
        assert slept.seen[0] == saved > 0
        assert slept.seen == sorted(slept.seen)

    def test_resume_begins_where_there_is_nothing_yet(self, tmp_path: Path) -> None:
        whole, second = Run(), Run()
        assert timeless(second.fit(tmp_path / "new", resume=True)) == timeless(whole.fit())

    def test_a_folder_is_enough(self, tmp_path: Path) -> None:
        bptt.fit(net(), stream(), epochs=1, checkpoint=str(tmp_path / "run"), progress=False)
        assert len(_store.checkpoints(tmp_path / "run")) == 2  # before the first update, at the end

    def test_the_bar_goes_on_where_it_stood(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(Died):
            Run().fit(tmp_path, die=32)
        run = Run()
        options = {"method": bptt.Truncated(9, 4), "epochs": 3, "resume": True}
        bptt.fit(run.network, run.stream, optimizer=run.optimizer, checkpoint=tmp_path, **options)
        assert "epoch 3/3" in capsys.readouterr().err


def _never(progress: bptt.Progress) -> None:
    raise AssertionError("nothing is trained any more")


_never.every = 1  # type: ignore[attr-defined]  # a function's own attribute


class TestRefusals:
    def test_changed_data_unless_forced(self, tmp_path: Path) -> None:
        with pytest.raises(Died):
            Run().fit(tmp_path, die=9)
        values = wave()
        values[31] += 1e-6

        def changed() -> Run:
            return Run(stream=lambda: bptt.Stream(values, horizon=1))

        with pytest.raises(bptt.DataError, match=r"training data changed .* resume='force'"):
            changed().fit(tmp_path, resume=True)
        changed().fit(tmp_path, resume="force")

    def test_changed_validation_data(self, tmp_path: Path) -> None:
        judge = bptt.Stream(wave(20), horizon=1)
        with pytest.raises(Died):
            Run(validation=judge).fit(tmp_path, die=9)
        other = bptt.Stream(wave(20) * 1.0001, horizon=1)
        with pytest.raises(bptt.DataError, match="the validation data changed"):
            Run(validation=other).fit(tmp_path, resume=True)

    def test_changed_files(self, tmp_path: Path) -> None:
        array = wave().numpy()[:, None]
        np.save(tmp_path / "wave.npy", array)

        def make() -> Run:
            return Run(
                stream=lambda: bptt.Stream.from_files(tmp_path / "wave.npy", inputs=[0], horizon=1)
            )

        with pytest.raises(Died):
            make().fit(tmp_path / "run", die=9)
        np.save(tmp_path / "wave.npy", array)  # another time of change, the same data
        make().fit(tmp_path / "run", resume=True)
        array[7] = 0.5
        np.save(tmp_path / "wave.npy", array)
        with pytest.raises(bptt.DataError, match="data changed"):
            make().fit(tmp_path / "run", resume=True)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"method": lambda: bptt.Truncated(9, 3)}, "stride=4, this one has 3"),
            ({"method": lambda: bptt.Full()}, "not of a Full"),
            ({"loss": "mae"}, "loss='mse', this one has 'mae'"),
            ({"clip": 1.0}, "clip=None, this one has 1.0"),
            ({"seed": 4}, "seed=None, this one has 4"),
            ({"optimizer": OPTIMIZERS["sgd"]}, "optimizer='Adam', this one has 'SGD'"),
            (
                {"optimizer": lambda p: torch.optim.Adam(p, 0.5)},
                "the optimizer's lr='0.01', this one has '0.5'",
            ),
            ({"validation": 0.2}, "validation=False"),
            ({"stop": lambda: bptt.TimeLimit(9)}, "stop="),
            (
                {"network": lambda: bptt.Network(bptt.cells.GRU(1, 6), nn.Linear(6, 1))},
                r"bias_hh is float32\[15\]",
            ),
            ({"network": lambda: net(dropout=0.5)}, "absent"),
            ({"network": lambda: net(clip_state_gradient=1.0)}, "clip_state_gradient=None"),
            ({"stream": lambda: stream(lanes=2)}, "lanes=1, this one has 2"),
        ],
        ids=lambda case: case if isinstance(case, str) else "-".join(case),
    )
    def test_other_options(self, other: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(Died):
            Run().fit(tmp_path, die=5)
        run = Run(**other)
        before = run.weights.clone()
        with pytest.raises(bptt.BpttError, match=message):
            run.fit(tmp_path, resume=True)
        assert torch.equal(run.weights, before)

    def test_a_folder_with_another_run(self, tmp_path: Path) -> None:
        Run().fit(tmp_path, epochs=1)
        with pytest.raises(bptt.OptionError, match="resume=True"):
            Run().fit(tmp_path)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: bptt.Checkpoint("x", every="soon"), "is no time"),
            (lambda: bptt.Checkpoint("x", every="30"), "is no time"),
            (lambda: bptt.Checkpoint("x", every=0), "every must be at least 1"),
            (lambda: bptt.Checkpoint("x", every=0.5), "every must be a whole number"),
            (lambda: bptt.Checkpoint("x", keep=0), "keep must be at least 1"),
            (lambda: bptt.Checkpoint("x", share=0), "share must be a number above 0"),
            (lambda: bptt.Checkpoint("x", share="1%"), "share must be a number above 0, not '1%'"),
            (lambda: bptt.Checkpoint(b"x"), "folder must be a path, not b'x'"),
            (lambda: bptt.Checkpoint("a\0b"), "folder must be a path"),
            (lambda: bptt.fit(net(), stream(), checkpoint=3), "folder must be a path, not 3"),
            (lambda: bptt.fit(net(), stream(), resume=True), "give checkpoint="),
            (lambda: bptt.fit(net(), stream(), resume="yes", checkpoint="x"), "'force'"),
        ],
    )
    def test_bad_options(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(bptt.OptionError, match=message):
            make()

    def test_what_cannot_be_saved_is_refused_before_training(self, tmp_path: Path) -> None:
        class Method:
            state = None

            def updates(self, *arguments: Any) -> Any:
                raise AssertionError

        with pytest.raises(bptt.OptionError, match="Method has no state_dict"):
            Run(method=Method).fit(tmp_path)

        class Odd(bptt.Epochs):
            def state_dict(self) -> dict[str, Any]:
                return {"when": object()}

        with pytest.raises(bptt.CheckpointError, match=r"criteria\.1\.when is a object"):
            Run(stop=lambda: Odd(3)).fit(tmp_path)

    def test_a_checkpoint_of_something_else(self, tmp_path: Path) -> None:
        from bptt.training._pack import pack

        _store.write(tmp_path, pack({"a": 1}), keep=1)
        with pytest.raises(bptt.CheckpointError, match="no checkpoint of a run"):
            Run().fit(tmp_path, resume=True)

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("progress", "epoch"), -(2**63)),  # it would never end
            (("progress", "epoch"), 3),
            (("progress", "updates"), -1),
            (("progress", "updates"), math.inf),
            (("random", "python"), [3, torch.tensor([-1] * 625), None]),
            (("progress", "elapsed"), math.nan),
            (("saving",), -math.inf),
        ],
    )
    def test_a_place_that_the_history_does_not_lead_to(
        self, place: tuple[str, ...], value: Any, tmp_path: Path
    ) -> None:
        from bptt.training._pack import pack, unpack

        with pytest.raises(Died):
            Run().fit(tmp_path / "run", die=5)
        state = unpack(_store.newest(tmp_path / "run").content)
        (state if len(place) == 1 else state[place[0]])[place[-1]] = value
        (tmp_path / "other").mkdir()
        _store.write(tmp_path / "other", pack(state), keep=1)
        with pytest.raises(bptt.CheckpointError, match=r"is not where|saving took|Overflow"):
            Run().fit(tmp_path / "other", resume=True)

    def test_two_runs_in_one_folder(self, tmp_path: Path) -> None:
        def other(progress: bptt.Progress) -> None:
            with pytest.raises(bptt.CheckpointError, match="written to by another run"):
                Run().fit(tmp_path, resume=True)
            seen.append(progress.updates)

        other.every = 20  # type: ignore[attr-defined]  # a function's own attribute
        seen: list[int] = []
        run = Run()
        run.fit(tmp_path, callbacks=[other])
        assert seen == [20, 40]
        whole = Run()
        whole.fit()
        assert torch.equal(run.weights, whole.weights)
        Run().fit(tmp_path, resume=True)  # it was let go

    def test_no_folder_for_checkpoints(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for place, message in {
            "file": "file is a file: name a folder",
            "file/below": "Not a directory",
            "x" * 300: "no checkpoint could be written .*: File name too long",
        }.items():
            with pytest.raises(bptt.CheckpointError, match=message):
                Run().fit(tmp_path / place)

    def test_a_checkpoint_that_lost_a_part(self, tmp_path: Path) -> None:
        from bptt.training._pack import pack, unpack

        def make() -> Run:
            return Run(scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))

        with pytest.raises(Died):
            make().fit(tmp_path, die=5)
        state = unpack(_store.newest(tmp_path).content)
        for part in sorted(state):
            if part == "saving":
                continue
            folder = tmp_path / part
            folder.mkdir()
            _store.write(folder, pack({k: v for k, v in state.items() if k != part}), keep=1)
            with pytest.raises(bptt.CheckpointError, match=part):
                make().fit(folder, resume=True)


class TestFaults:
    def test_a_damaged_checkpoint_is_named_and_the_one_before_used(self, tmp_path: Path) -> None:
        whole = Run()
        history = whole.fit()
        with pytest.raises(Died):
            Run().fit(tmp_path, die=20)
        before, newest = _store.checkpoints(tmp_path)[-2:]
        (newest / "tensors.safetensors").write_bytes(b"half")
        second = Run()
        with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*from {before.name}"):
            again = second.fit(tmp_path, resume=True)
        assert timeless(again) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_a_full_disk_stops_training_and_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import errno
        import os

        whole = Run()
        history = whole.fit()
        real, calls = os.write, [0]

        def full(handle: int, data: Any) -> int:
            calls[0] += 1
            if calls[0] > 40:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(handle, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(bptt.CheckpointError, match=r"no room for a checkpoint .* is intact"):
            Run().fit(tmp_path)
        monkeypatch.undo()
        second = Run()
        assert timeless(second.fit(tmp_path, resume=True)) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_another_version_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(Died):
            Run().fit(tmp_path, die=5)
        monkeypatch.setattr(torch, "__version__", "9.9")
        with pytest.warns(UserWarning, match=r"saved under torch \d.*other roundings"):
            Run().fit(tmp_path, resume=True)


class TestCost:
    """With a clock of its own: no time is measured."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
        now = [100.0]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(_checkpoint.time, "perf_counter", lambda: now[0])
        return now

    def saves(
        self, clock: list[float], cost: float, monkeypatch: pytest.MonkeyPatch, **options: Any
    ) -> tuple[list[float], Any]:
        """When saving happens in 4000 updates of half a second, each of which costs ``cost``."""

        def write(folder: Path, content: Any, keep: int, **about: Any) -> Path:
            clock[0] += cost
            return folder

        monkeypatch.setattr(_store, "write", write)
        saver = _checkpoint.Saver(bptt.Checkpoint("x", **options), dict, dict)
        saver.start()
        began, when = clock[0], []
        for update in range(1, 4001):
            clock[0] += 0.5
            if saver.due(update):
                when.append(clock[0] - began)
                saver.save(update)
        saver.close()
        return when, saver

    def test_every_so_often(self, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        when, _ = self.saves(clock, 0.01, monkeypatch, every="30s")
        gaps = [b - a for a, b in zip([0.0, *when], when, strict=False)]
        assert len(when) == 66
        assert min(gaps) >= 30
        when, _ = self.saves(clock, 0.0, monkeypatch, every=100)
        assert when == [50.0 * (i + 1) for i in range(40)]
        when, _ = self.saves(clock, 0.0, monkeypatch, every="2min")
        assert when == [120.0 * (i + 1) for i in range(16)]

    @pytest.mark.parametrize("every", ["30s", 10])
    @pytest.mark.parametrize("cost", [0.1, 1.0, 3.0])
    def test_at_most_its_share(
        self, cost: float, every: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        when, saver = self.saves(clock, cost, monkeypatch, every=every)
        assert when
        assert saver.spent <= 0.01 * 2000
        assert saver.spent > 0.5 * 0.01 * 2000 or cost == 0.1

    def test_without_bounds(self, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        when, _ = self.saves(clock, 3.0, monkeypatch, every=10, share=math.inf)
        assert len(when) == 400


class TestSignals:
    @pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("at", [1, 9, 10, 27])
    def test_the_update_at_hand_is_finished_and_saved(
        self, at: int, which: signal.Signals, tmp_path: Path
    ) -> None:
        whole = Run(validation=0.3)
        history = whole.fit()
        handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
        updates: list[int] = []

        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            if not updates or updates[-1] < at:
                updates.append(updates[-1] + 1 if updates else 1)
                if updates[-1] == at:
                    signal.raise_signal(which)
            return (prediction - target).square()

        loss.__qualname__ = "mse"
        first = Run(validation=0.3, loss=loss)
        first.options["loss"] = loss
        with pytest.raises(bptt.Interrupted, match=r"saved in .*resume=True") as caught:
            first.fit(tmp_path, every=10**6)
        assert caught.value.signal == which
        assert isinstance(caught.value, KeyboardInterrupt)
        assert not isinstance(caught.value, Exception)
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
        second = Run(validation=0.3)
        # The loss was named alike, so that it counts as the same.
        plain = _same_loss()
        again = second.fit(tmp_path, resume=True, loss=plain)
        assert timeless(again) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_within_validation_it_does_not_wait(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bptt.training import _alone

        whole = Run(validation=0.3)
        history = whole.fit()
        real, calls = _alone.evaluate, [0]

        def evaluate(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == 3:
                signal.raise_signal(signal.SIGTERM)
                raise AssertionError("it waited")
            return real(*arguments)

        monkeypatch.setattr(_alone, "evaluate", evaluate)
        with pytest.raises(bptt.Interrupted, match="in epoch 2"):
            Run(validation=0.3).fit(tmp_path)
        monkeypatch.undo()
        second = Run(validation=0.3)
        assert timeless(second.fit(tmp_path, resume=True)) == timeless(history)
        assert torch.equal(second.weights, whole.weights)

    def test_a_second_one_leaves_at_once(self, tmp_path: Path) -> None:
        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")

        with pytest.raises(KeyboardInterrupt) as caught:
            Run(loss=loss).fit(tmp_path)
        assert not isinstance(caught.value, bptt.Interrupted)
        assert len(_store.checkpoints(tmp_path)) == 1  # the first; nothing was saved half-way

    @pytest.mark.parametrize("where", ["the last save", "the last callback"])
    def test_one_that_comes_after_the_last_update_is_not_lost(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All is saved, and whoever waits for the signal gets it."""
        caught: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
        saves: list[int] = []
        real = _store.write

        def write(*given: Any, **about: Any) -> Path:
            saves.append(1)
            if where == "the last save" and len(saves) == 2:
                signal.raise_signal(signal.SIGTERM)
            return real(*given, **about)

        def last(progress: bptt.Progress) -> None:
            if where == "the last callback" and progress.epoch == 3:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(_store, "write", write)
        try:
            history = Run().fit(tmp_path, callbacks=[last], every=10**6)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert len(history) == 3
        assert caught == [signal.SIGTERM]
        assert len(_store.checkpoints(tmp_path)) == 2

    def test_without_checkpoints_nothing_changes(self) -> None:
        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")

        with pytest.raises(KeyboardInterrupt) as caught:
            Run(loss=loss).fit()
        assert not isinstance(caught.value, bptt.Interrupted)

    def test_in_another_thread_nothing_is_taken_in(self, tmp_path: Path) -> None:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(Run().fit(tmp_path)))
        thread.start()
        thread.join()
        assert len(found[0]) == 3

    def test_an_ignored_signal_stays_ignored(self, tmp_path: Path) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:

            def loss(prediction: Tensor, target: Tensor) -> Tensor:
                signal.raise_signal(signal.SIGINT)
                return (prediction - target).square()

            assert len(Run(loss=loss, epochs=1).fit(tmp_path)) == 1
        finally:
            signal.signal(signal.SIGINT, before)


def _same_loss() -> Callable[[Tensor, Tensor], Tensor]:
    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square()

    loss.__qualname__ = "mse"
    return loss


def test_nothing_is_said_when_all_is_well(tmp_path: Path) -> None:
    with pytest.raises(Died):
        Run().fit(tmp_path, die=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run().fit(tmp_path, resume=True)


def test_epochs_come_back_as_they_were(tmp_path: Path) -> None:
    history = Run().fit(tmp_path)
    again = Run().fit(tmp_path, resume=True)
    assert again.epochs == history.epochs
    assert all(isinstance(epoch, Epoch) for epoch in again.epochs)


class TestStarts:
    def fit(self, **options: Any) -> tuple[bptt.Network, bptt.History]:
        torch.manual_seed(options.pop("elsewhere", 0))
        network = net()
        history = bptt.fit(
            network,
            stream(),
            method=bptt.Truncated(9, 4),
            epochs=2,
            starts=3,
            progress=False,
            **{"seed": 5, **options},
        )
        return network, history

    def test_broken_in_the_middle_of_one_they_all_come_back(self, tmp_path: Path) -> None:
        whole, history = self.fit()
        left = [40]  # updates until a start is left for good, in the second one

        def interrupt(progress: bptt.Progress) -> None:
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGINT)

        interrupt.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        with pytest.raises(bptt.Interrupted, match="after 1 of 3 starts"):
            self.fit(checkpoint=tmp_path, callbacks=[interrupt])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["seed", "start-0", "start-1"]
        seen: list[int] = []

        def count(progress: bptt.Progress) -> None:
            seen.append(progress.updates)

        count.every = 1  # type: ignore[attr-defined]  # a function's own attribute
        mended, again = self.fit(checkpoint=tmp_path, resume=True, callbacks=[count], elsewhere=9)
        assert len(seen) == 3 * 28 - 40
        assert timeless(again) == timeless(history)
        assert all(
            torch.equal(a, b) for a, b in zip(mended.parameters(), whole.parameters(), strict=True)
        )

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_signal_as_one_ends_leaves_the_others(self, fails: bool, tmp_path: Path) -> None:
        """In its last callback, be it that an error follows."""
        ended: list[int] = []

        def last(progress: bptt.Progress) -> None:
            if progress.epoch == 2:
                ended.append(1)
                signal.raise_signal(signal.SIGINT)
                if fails:
                    raise ZeroDivisionError

        with pytest.raises(bptt.Interrupted, match="after 1 of 3 starts"):
            self.fit(checkpoint=tmp_path, callbacks=[last])
        assert ended == [1]

    def test_a_second_signal_leaves_at_once(self, tmp_path: Path) -> None:
        seen: list[int] = []

        def twice(progress: bptt.Progress) -> None:
            for _ in range(2):
                seen.append(1)
                signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")

        with pytest.raises(KeyboardInterrupt) as caught:
            self.fit(checkpoint=tmp_path, callbacks=[twice])
        assert not isinstance(caught.value, bptt.Interrupted)
        assert len(seen) == 2

    def test_one_seed_and_one_kind_of_run_in_a_folder(self, tmp_path: Path) -> None:
        options = {"checkpoint": tmp_path / "starts", "resume": True}
        self.fit(**options)
        with pytest.raises(bptt.OptionError, match=r"holds starts of seed=\d+, not 77"):
            self.fit(**{**options, "seed": 77})
        with pytest.raises(bptt.OptionError, match="holds several starts"):
            Run().fit(tmp_path / "starts", resume=True)
        Run().fit(tmp_path / "one", epochs=1)
        with pytest.raises(bptt.OptionError, match="the checkpoints of a single run"):
            self.fit(**{**options, "checkpoint": tmp_path / "one"})

    def test_they_need_a_seed(self, tmp_path: Path) -> None:
        with pytest.raises(bptt.OptionError, match="needs a seed"):
            bptt.fit(net(), stream(), starts=2, checkpoint=tmp_path)
