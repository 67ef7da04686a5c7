"""No run goes on from a checkpoint of something else, and bad options are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bptt
from bptt.training import _store

from .broken_runs import OPTIMIZERS, Died, Run, net, stream, wave


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
