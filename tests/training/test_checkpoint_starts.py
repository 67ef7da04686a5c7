"""Several starts that are broken go on as one run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import bptt

from .broken_runs import Run, net, stream, timeless


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
