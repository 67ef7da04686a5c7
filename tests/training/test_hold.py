"""A folder that is moved away while training writes to it: nothing is written under its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bptt
from bptt.errors import CheckpointError
from bptt.files import Moved
from bptt.training import Checkpoint, Hold, Place

CHANGES: dict[str, Callable[[Path], object]] = {
    "moved": lambda path: path.rename(path.with_name("moved")),
    "replaced": lambda path: (path.rename(path.with_name("moved")), path.mkdir()),
    "removed": shutil.rmtree,
}


@pytest.mark.parametrize("kind", [Hold, Place])
@pytest.mark.parametrize("change", CHANGES)
def test_what_happened_is_told(change: str, kind: type[Place], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    place = kind(folder)
    place.check()
    CHANGES[change](folder)
    assert not place.is_there()
    with pytest.raises(Moved, match="go on from there") as caught:
        place.check()
    if kind is Hold and change != "removed" and os.path.isdir("/proc/self/fd"):
        assert f"moved to {tmp_path / 'moved'}" in str(caught.value)


def test_another_name_of_the_same_folder_is_the_same(tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()
    with Hold(folder) as hold:
        folder.rename(moved)
        folder.symlink_to(moved)
        hold.check()


def fit(folder: Path, callback: Callable[..., None], **options: Any) -> None:
    network = bptt.Network(bptt.cells.Elman(1, 3), nn.Linear(3, 1), backend="eager")
    stream = bptt.Stream(torch.randn(40, 1), torch.randn(40, 1), horizon=1)
    bptt.fit(
        network,
        stream,
        method=bptt.Truncated(10, 10),
        epochs=6,
        callbacks=[callback],
        progress=False,
        checkpoint=Checkpoint(folder, every=1, share=float("inf")),
        **options,
    )


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("starts", [None, 3])
@pytest.mark.parametrize("above", [False, True])
def test_training_ends_and_writes_nothing_more(
    above: bool, starts: int | None, change: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    folder = run / "checkpoints" if above else run
    folder.mkdir(parents=True)
    seen: list[int] = []

    def callback(progress: Any) -> None:
        seen.append(1)
        if len(seen) == 2 + 6 * (starts is not None):  # of several, in the second one
            CHANGES[change](run)

    options = {} if starts is None else {"starts": starts, "seed": 1}
    with pytest.raises(CheckpointError, match="Nothing is written under that name any more"):
        fit(folder, callback, **options)
    assert not list(run.iterdir() if run.is_dir() else [])
    if change != "removed":
        assert list((tmp_path / "moved").rglob("checkpoint-*"))


def test_the_next_start_does_not_make_the_folder_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed after the last update of a start."""
    run = tmp_path / "run"

    def end(history: Any) -> tuple[float, int]:
        shutil.rmtree(run)
        return 0.0, 1

    monkeypatch.setattr("bptt.training._starts._end", end)
    with pytest.raises(Moved):
        fit(run, lambda progress: None, starts=3, seed=1)
    assert not run.exists()
