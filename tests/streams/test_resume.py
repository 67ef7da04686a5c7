"""Stopped anywhere and taken up again, training is as if it had never stopped, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.streams.documents import F64, Documents, network, scaled

import bptt

DOCUMENTS = Documents((7, 3, 12, 1, 5, 8))
EPOCHS = 2

METHODS: dict[str, Callable[[], Any]] = {
    "full": lambda: bptt.Full(),
    "in segments": lambda: bptt.Full(segment=3),
    "carried": lambda: bptt.Truncated(5, 2),
    "detached": lambda: bptt.Truncated(4),
    "gap": lambda: bptt.Truncated(2, 3, loss="last"),
    "all": lambda: bptt.Truncated(5, 3, loss="all", combine="mean"),
    "recomputed": lambda: bptt.Truncated(5, 2, context="recomputed"),
    "stored": lambda: bptt.Truncated(6, 2, history="stored"),
    "sliding": lambda: bptt.SlidingWindow(3),
}


class Run:
    """A network in training, all of which can be put on disk and made anew from there."""

    def __init__(self, method: Any, stream: bptt.Stream) -> None:
        self.network = network(learn_initial_state=True)
        # In steps that do not saturate the cell: what is resumed must depend on what was saved.
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-5)
        self.method, self.stream = method, stream

    def train(self, epochs: int, stop: int | None = None) -> list[tuple[float, int, int, int]]:
        """Updates to the end of so many epochs of the stream, or until ``stop`` are made."""
        seen: list[tuple[float, int, int, int]] = []
        while self.stream.epoch < epochs or self.method.state_dict()["pass"] is not None:
            for update in self.method.updates(self.network, scaled, self.stream):
                self.optimizer.step()
                self.optimizer.zero_grad()
                seen.append((update.loss, update.batch, update.start, update.count))
                if len(seen) == stop:
                    return seen
        return seen

    def save(self, folder: Path) -> None:
        """Everything, without pickle but for PyTorch's own optimizer."""
        method = self.method.state_dict()
        safetensors.torch.save_file(method.pop("tensors"), folder / "method.safetensors")
        plain = {"method": method, "stream": self.stream.state_dict()}
        (folder / "plain.json").write_text(json.dumps(plain))
        torch.save((self.network.state_dict(), self.optimizer.state_dict()), folder / "weights.pt")

    def load(self, folder: Path) -> None:
        """The inverse, in new objects."""
        plain = json.loads((folder / "plain.json").read_text())
        tensors = safetensors.torch.load_file(folder / "method.safetensors")
        self.method.load_state_dict({**plain["method"], "tensors": tensors})
        self.stream.load_state_dict(plain["stream"])
        weights, optimizer = torch.load(folder / "weights.pt")
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)


def stream(how: str, folder: Path) -> bptt.Stream:
    if how == "memory":
        return DOCUMENTS.in_memory(lanes=2, shuffle=4, horizon=1)
    if how == "batches":
        return DOCUMENTS.in_memory(batch=2, shuffle=4, horizon=1)
    return DOCUMENTS.in_files(folder, "csv", lanes=2, shuffle=4, horizon=1, chunk=4)


@pytest.mark.parametrize("how", ["memory", "batches", "files"])
@pytest.mark.parametrize("name", METHODS)
def test_stopped_and_taken_up_is_as_never_stopped(name: str, how: str, tmp_path: Path) -> None:
    if name == "sliding" and how == "batches":
        pytest.skip("a window needs longer sequences")
    whole = Run(METHODS[name](), stream(how, tmp_path))
    expected = whole.train(EPOCHS)
    for stop in sorted({1, 2, len(expected) // 2, len(expected) // 2 + 1, len(expected)}):
        first = Run(METHODS[name](), stream(how, tmp_path))
        seen = first.train(EPOCHS, stop)
        first.save(tmp_path)
        second = Run(METHODS[name](), stream(how, tmp_path))
        second.load(tmp_path)
        seen += second.train(EPOCHS)
        assert seen == expected
        for one, other in zip(second.network.parameters(), whole.network.parameters(), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(second.method.state[0], whole.method.state[0])


def test_a_place_stays_true_when_the_next_window_fails(tmp_path: Path) -> None:
    """Saved after a failure, the pass goes on after the last update that was made."""
    whole = Run(METHODS["recomputed"](), stream("memory", tmp_path))
    expected = whole.train(1)
    broken = Run(METHODS["recomputed"](), stream("memory", tmp_path))
    updates = broken.method.updates(broken.network, scaled, broken.stream)
    seen = []
    for update in updates:
        broken.optimizer.step()
        broken.optimizer.zero_grad()
        seen.append((update.loss, update.batch, update.start, update.count))
        if len(seen) == 3:
            break
    forward = broken.network.cell.forward
    broken.network.cell.forward = None  # type: ignore[assignment]  # the next window fails
    with pytest.raises(TypeError):
        next(updates)
    broken.network.cell.forward = forward
    broken.network.zero_grad()
    broken.save(tmp_path)
    second = Run(METHODS["recomputed"](), stream("memory", tmp_path))
    second.load(tmp_path)
    assert seen + second.train(1) == expected


def test_a_finished_pass_is_followed_by_a_new_one(tmp_path: Path) -> None:
    run = Run(bptt.Truncated(4), stream("memory", tmp_path))
    run.train(1)
    saved = run.method.state_dict()
    assert saved["pass"] is None
    other = Run(bptt.Truncated(4), stream("memory", tmp_path))
    other.method.load_state_dict(saved)
    other.stream.load_state_dict(run.stream.state_dict())
    other.network.load_state_dict(run.network.state_dict())
    other.optimizer.load_state_dict(deepcopy(run.optimizer.state_dict()))
    assert other.train(2) == run.train(2)


def test_what_was_saved_elsewhere_is_refused(tmp_path: Path) -> None:
    run = Run(bptt.Truncated(4), stream("memory", tmp_path))
    run.train(1, stop=2)
    method, place = run.method.state_dict(), run.stream.state_dict()
    with pytest.raises(bptt.OptionError, match="depth=4, this one has 5"):
        bptt.Truncated(5).load_state_dict(method)
    with pytest.raises(bptt.OptionError, match="'Truncated', not of a Full"):
        bptt.Full().load_state_dict(method)
    with pytest.raises(bptt.DataError, match="lanes=2, this one has 3"):
        DOCUMENTS.in_memory(lanes=3, shuffle=4, horizon=1).load_state_dict(place)
    with pytest.raises(bptt.DataError, match="shuffle=4"):
        DOCUMENTS.in_memory(lanes=2, shuffle=5, horizon=1).load_state_dict(place)
    with pytest.raises(bptt.DataError, match="no state of a stream"):
        stream("memory", tmp_path).load_state_dict({})
    again = bptt.Truncated(4)
    again.load_state_dict(method)
    with pytest.raises(bptt.OptionError, match=r"epoch 1 .* stands at epoch 0"):
        again.updates(network(), scaled, stream("memory", tmp_path))
    again.load_state_dict(method)
    later = stream("memory", tmp_path)
    later.load_state_dict(place)
    with pytest.raises(bptt.OptionError, match="its own state"):
        again.updates(network(), scaled, later, state=torch.zeros(2, 3))
    again.load_state_dict(method)
    other = Documents((30, 30)).in_memory(lanes=2)
    other.epoch = 1
    with pytest.raises(bptt.DataError, match="goes on with the stream"):
        next(iter(again.updates(network(), scaled, other)))


def test_learned_state_dtype_survives(tmp_path: Path) -> None:
    run = Run(bptt.Truncated(5, 1, history="stored"), stream("memory", tmp_path))
    run.train(1, stop=4)
    saved = run.method.state_dict()
    assert {tensor.dtype for tensor in saved["tensors"].values()} == {F64}
    assert len(saved["pass"]["visited"]) == 4
    json.dumps({name: value for name, value in saved.items() if name != "tensors"})
