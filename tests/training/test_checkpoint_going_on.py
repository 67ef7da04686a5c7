"""A run goes on from its checkpoints: where it stood, to more epochs, or to its end."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import bptt
from bptt.training import _store
from bptt.training._history import Epoch

from .broken_runs import Died, Run, net, stream, timeless


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
