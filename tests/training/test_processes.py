"""Several processes against one: the same updates to rounding, and no waiting for what is gone."""

from __future__ import annotations

import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.shared_runs import CASES, found, work
from torch import Tensor

import bptt

ROUNDING = {"rel": 1e-9, "abs": 1e-12}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each of two, and of three, processes found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.shared_runs"])
    results = {}
    folder = tmp_path_factory.mktemp("processes")
    running = [
        context.Process(target=work, args=(rank, world, str(folder), world == 2))
        for world in (2, 3)
        for rank in range(world)
    ]
    for process in running:
        process.start()
    deadline = time.monotonic() + 180
    for process in running:
        process.join(max(deadline - time.monotonic(), 0))
        process.kill()
    for world in (2, 3):
        results[world] = [
            json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)
        ]
    return results


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def flat(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if not isinstance(tree, (list, tuple)):
        yield math.nan if tree is None else float(tree)
        return
    for part in tree:
        yield from flat(part)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("_double")
@pytest.mark.filterwarnings("ignore::bptt.NonFiniteWarning")
def test_several_processes_are_one(name: str, together: Any, tmp_path: Path) -> None:
    one = found(CASES[name], tmp_path)
    for results in together.values():
        for result in results:
            assert list(flat(result[name])) == pytest.approx(
                list(flat(one)), nan_ok=True, **ROUNDING
            )
            assert result[name] == results[0][name]  # the same in all of them, bit for bit


OTHERS = {
    "a callback": "ProcessError: process 1 failed, and so training ended. ValueError: tripped",
    "a callback at the end": "ProcessError: process 1 failed, and so training ended. ValueError",
    "the death of another": "ProcessError: another of the processes that train together ended",
}
ALL = {
    "not finite": "NonFiniteError: loss inf in epoch 1, update 1, steps 0 to 3 of batch 0",
    "other options": "OptionError: processes that train together must be given the same clip: "
    "process 0 has 1.0, process 1 has 2.0.",
    "other data": "OptionError: processes that train together must be given the same stream",
    "out of step": "ProcessError: the processes fell out of step: process 0 is at an update, steps "
    "20 to 23 of batch 0, process 1 is at an update, steps 8 to 11 of batch 0",
    "a criterion of its own": "ProcessError: the processes fell out of step: process 0 is at an "
    "update, steps 12 to 15 of batch 0, process 1 is at the end",
    "a shard": "OptionError: each process takes its own lanes",
    "uoro": "OptionError: UORO draws the random signs of all lanes together",
    "least squares": "OptionError: LeastSquares evaluates the loss by itself",
    "starts": "OptionError: starts= runs through joblib",
    "and then": "none",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_process_that_fails_ends_the_others(name: str, together: Any) -> None:
    zero, one = together[2]
    assert zero[name].startswith(OTHERS[name])
    assert one.get(name) in (None, "the error itself: tripped")


@pytest.mark.parametrize("name", ALL)
def test_all_processes_end_alike(name: str, together: Any) -> None:
    for result in together[2]:
        assert result[name].startswith(ALL[name])


def test_torchrun_goes_on_from_the_last_checkpoint(together: Any, tmp_path: Path) -> None:
    """One of two processes is killed; both are started again and end as if nothing had been."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "--monitor-interval=0.1", "-m", "tests.training.shared_runs"]
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    for rank in range(2):
        result = json.loads((tmp_path / f"restarted-{rank}.json").read_text())
        assert result["again"]
        assert result["checkpoints"] == 3
        assert result["restarted"] == together[2][rank]["unbroken"]  # bit for bit


METHODS: dict[str, tuple[Callable[[], Any], Callable[..., torch.nn.Module]]] = {
    "full": (bptt.Full, bptt.cells.LSTM),
    "segments": (lambda: bptt.Full(segment=3), bptt.cells.GRU),
    "carried": (lambda: bptt.Truncated(5, 2), bptt.cells.GRU),
    "recomputed": (lambda: bptt.Truncated(5, 2, context="recomputed"), bptt.cells.LSTM),
    "stored": (lambda: bptt.Truncated(5, 2, history="stored"), bptt.cells.GRU),
    "sliding window": (lambda: bptt.SlidingWindow(4), bptt.cells.GRU),
    "rtrl": (lambda: bptt.RTRL(stride=2), bptt.cells.LSTM),
    "focused": (lambda: bptt.Focused(stride=2), bptt.cells.SelfRecurrent),
    "evolution": (lambda: bptt.EvolutionStrategies(pairs=2), bptt.cells.GRU),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("world", [2, 5])  # five: there are processes without a lane
@pytest.mark.usefixtures("_double")
def test_the_parts_of_a_gradient_make_the_whole(method: str, world: int) -> None:
    """With the weights held, at every update; uneven ends, and windows in which nothing counts."""
    data = [torch.rand(n, 1) for n in (9, 6, 5)]
    make, cell = METHODS[method]
    torch.manual_seed(0)
    net = bptt.Network(cell(1, 3), torch.nn.Linear(3, 1), learn_initial_state=True, backend="eager")

    def stream() -> bptt.Stream:
        return bptt.Stream(data, horizon=1, lanes=3, burn_in=1)

    def sums(part: bptt.Stream) -> list[tuple[int, int, int, float, Tensor]]:
        found = []
        for update in make().updates(net, "mse", part):
            gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
            flat = torch.cat([one.flatten() for one in gradient])
            count = update.count
            loss = update.loss * count if count else 0.0
            flat = flat * count if count else torch.zeros_like(flat)
            found.append((update.start, update.stop, count, loss, flat))
            net.zero_grad()
        return found

    whole = {one[:2]: one[2:] for one in sums(stream())}
    parts = [sums(stream().part(rank, world)) for rank in range(world)]
    assert all([one[:2] for one in part] == [one[:2] for one in parts[0]] for part in parts)
    assert sum(one[2] for one in parts[0]) > 0
    for together in zip(*parts, strict=True):
        count, loss = (sum(one[i] for one in together) for i in (2, 3))
        expected = whole.get(together[0][:2])
        if expected is None:  # nothing counts
            assert count == 0
            continue
        assert (count, loss) == (expected[0], pytest.approx(expected[1], rel=1e-12))
        total = torch.stack([one[4] for one in together]).sum(0)
        assert torch.allclose(total, expected[2], rtol=1e-10, atol=1e-13)
    assert len(whole) <= len(parts[0])


def test_a_part_has_every_window_of_the_whole() -> None:
    stream = bptt.Stream([torch.rand(n, 1) for n in (9, 4, 2)], horizon=1, lanes=3)
    net = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1))
    method = bptt.Truncated(2)
    whole = [(u.start, u.stop, u.count) for u in method.updates(net, "mse", stream)]
    parts = [
        [(u.start, u.stop, u.count) for u in method.updates(net, "mse", stream.part(rank, 5))]
        for rank in range(5)
    ]
    for part in parts:
        assert [place[:2] for place in part] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    counts = [sum(place[2] for place in places) for places in zip(*parts, strict=True)]
    assert counts == [count for *_, count in whole] + [0]  # the last step has no target
    assert sum(map(len, parts[3:])) == 10  # more processes than lanes
    with pytest.raises(bptt.OptionError, match="ranks go from 0 to 1"):
        stream.part(2, 2)
    with pytest.raises(bptt.OptionError, match="predict with the whole stream"):
        bptt.predict(net, stream.part(0, 2))
