"""At a signal a run finishes the update at hand, and saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bptt
from bptt.training import _store

from .broken_runs import Run, timeless


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

    @pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
    def test_a_second_hangup_is_nobodys_wish(self, first: signal.Signals, tmp_path: Path) -> None:
        """A terminal that is closed sends one, and its shell another."""

        def lost(number: int, frame: Any) -> None:
            raise AssertionError("training is left unsaved")

        before = signal.signal(signal.SIGHUP, lost)
        seen: list[int] = []

        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            seen.append(1)
            if len(seen) == 9:
                signal.raise_signal(first)
                signal.raise_signal(signal.SIGHUP)
            return (prediction - target).square()

        try:
            run = Run(loss=loss)
            run.options["loss"] = loss
            with pytest.raises(bptt.Interrupted):
                run.fit(tmp_path, every=10**6)
            assert signal.getsignal(signal.SIGHUP) is lost
        finally:
            signal.signal(signal.SIGHUP, before)
        assert len(_store.checkpoints(tmp_path)) == 2

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
