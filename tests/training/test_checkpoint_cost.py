"""Checkpoints are saved as often as was asked for, and take at most their share of the time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import bptt
from bptt.training import _checkpoint, _store


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
