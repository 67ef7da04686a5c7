"""Damaged checkpoints, full disks and other versions lose nothing and are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bptt
from bptt.training import _store

from .broken_runs import Died, Run, timeless


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
