"""What several processes train, and one process beside them: cases by name."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

import bptt
from bptt.training import join_processes


def network(backend: str = "eager", **options: Any) -> bptt.Network:
    torch.manual_seed(0)
    made = bptt.Network(bptt.cells.GRU(1, 4), nn.Linear(4, 1), backend=backend, **options)
    made.register_buffer("scale", torch.tensor([1.0, math.nan]))  # read from checkpoints, put back
    return made


def waves(steps: int, phase: float = 0.0) -> Tensor:
    time = torch.arange(steps, dtype=torch.float64) + phase
    return torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time)


def ragged(**options: Any) -> bptt.Stream:
    lengths = (11, 3, 17, 2, 9, 5, 4, 13, 6)
    return bptt.Stream([waves(n, 7.0 * i) for i, n in enumerate(lengths)], horizon=1, **options)


def with_lanes() -> bptt.Stream:
    """[time, lane, feature]; in the windows of the middle only the last lane counts."""
    data = torch.stack([waves(30, 3.0 * lane) for lane in range(5)], dim=1)[..., None]
    mask = torch.ones(30, 5, dtype=torch.bool)
    mask[8:20, :4] = False
    mask[24:28] = False
    targets = torch.where(mask[..., None], data.roll(-1, 0), torch.nan)
    return bptt.Stream(data, targets, mask=mask)


def overflowing() -> bptt.Stream:
    """A loss of the last lane is not finite."""
    data = torch.stack([waves(30, 3.0 * lane) for lane in range(5)], dim=1)[..., None]
    targets = data.roll(-1, 0)
    targets[13, 4] = 1e200
    return bptt.Stream(data, targets)


def from_file(folder: Path) -> bptt.Stream:
    path = folder / f"waves{os.getpid()}.npy"
    np.save(path, waves(41).numpy())
    return bptt.Stream.from_files(path, inputs=[0], lanes=3, horizon=1, chunk=5)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.05, momentum=0.5)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), 0.01)


def lbfgs(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(net.parameters(), max_iter=2, line_search_fn="strong_wolfe")


Case = Callable[[Path], tuple[bptt.Network, bptt.History]]


def case(
    data: Callable[[Path], bptt.Stream],
    method: Callable[[], bptt.GradientMethod],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam,
    net: Callable[[], bptt.Network] = network,
    **options: Any,
) -> Case:
    def run(folder: Path) -> tuple[bptt.Network, bptt.History]:
        model = net()
        history = bptt.fit(
            model,
            data(folder),
            method=method(),
            optimizer=optimizer(model),
            epochs=2,
            progress=False,
            **options,
        )
        return model, history

    return run


def learned() -> bptt.Network:
    return network(learn_initial_state=True)


def partly_unused() -> bptt.Network:
    """A parameter that never gets a gradient, and so must not decay."""
    model = network()
    model.readout.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model


CASES: dict[str, Case] = {
    "truncated, ragged sequences on lanes, clipped": case(
        lambda _: ragged(lanes=5, burn_in=2), lambda: bptt.Truncated(6, 3), clip=0.1, validation=0.3
    ),
    "full in segments, mini-batches, shuffled": case(
        lambda _: ragged(batch=4, shuffle=1), lambda: bptt.Full(segment=5), sgd, validation=0.3
    ),
    "recomputed, averaged, learned initial state, masked lanes": case(
        lambda _: with_lanes(),
        lambda: bptt.Truncated(5, 2, loss="last", context="recomputed", combine="mean"),
        sgd,
        learned,
    ),
    "stored": case(
        lambda _: with_lanes(), lambda: bptt.Truncated(7, 2, history="stored"), net=partly_unused
    ),
    "lbfgs": case(lambda _: with_lanes(), lambda: bptt.Truncated(9), lbfgs),
    "sliding window, one lane": case(
        lambda _: bptt.Stream(waves(25), horizon=1), lambda: bptt.SlidingWindow(5), sgd
    ),
    "rtrl": case(
        lambda _: with_lanes(), lambda: bptt.RTRL(stride=3), sgd, learned, validation=with_lanes()
    ),
    "evolution, mini-batches": case(
        lambda _: ragged(batch=4), lambda: bptt.EvolutionStrategies(pairs=3), sgd
    ),
    "an infinite loss skipped": case(
        lambda _: overflowing(), lambda: bptt.Truncated(4), sgd, on_nonfinite="skip"
    ),
    "an infinite loss rolled back": case(
        lambda _: overflowing(), lambda: bptt.RTRL(stride=4), adam, on_nonfinite="rollback"
    ),
    "a file": case(
        from_file, lambda: bptt.Truncated(4), net=lambda: network("auto"), validation=0.25
    ),
}


def found(run: Case, folder: Path) -> dict[str, Any]:
    """What a run gave, as plain numbers."""
    model, history = run(folder)
    epochs = [(e.loss, e.validation, e.gradient_norm, e.updates, e.counted) for e in history.epochs]
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"weights": state, "epochs": epochs, "best": history.best_epoch}


def broken(**options: Any) -> Case:
    """A run that is saved, killed and taken up again, or not."""
    return case(
        lambda _: with_lanes(),
        lambda: bptt.Truncated(6, 2),
        net=lambda: network(),
        validation=with_lanes(),
        seed=5,
        **options,
    )


class OnlyCounted:
    """A gradient method that leaves out the windows in which nothing counts here."""

    state = None

    def updates(self, *args: Any) -> Any:
        return (update for update in bptt.Truncated(4).updates(*args) if update.count)


def told(**options: Any) -> str:
    """The error that a run ends with."""
    model = network()
    options = {"method": bptt.Truncated(4), "epochs": 2, "progress": False, **options}
    try:
        bptt.fit(model, options.pop("data", with_lanes()), **options)
    except bptt.BpttError as error:
        return f"{type(error).__name__}: {error}"
    except ValueError as error:
        return f"the error itself: {error}"
    return "none"


def failures(rank: int) -> dict[str, str]:
    def trip(progress: bptt.Progress) -> None:
        if rank == 1:
            raise ValueError("tripped")

    def at_the_end(progress: bptt.Progress) -> None:
        if progress.epoch == 2:
            trip(progress)

    def explode(prediction: Tensor, target: Tensor) -> Tensor:
        loss = (prediction - target).square()
        return loss / 0.0 if rank == 1 else loss

    class Impatient(bptt.StoppingCriterion):
        def after_update(self, progress: bptt.Progress) -> str | None:
            return "enough" if rank == 1 and progress.updates == 3 else None

    files = bptt.Stream(waves(20), horizon=1)
    files.shard = (0, 2)
    return {
        "a callback": told(callbacks=[trip]),
        "a callback at the end": told(callbacks=[at_the_end]),
        "not finite": told(loss=explode),
        "other options": told(clip=1.0 + rank),
        "other data": told(data=bptt.Stream(waves(20 + rank), horizon=1, lanes=2)),
        "out of step": told(method=OnlyCounted()),
        "a criterion of its own": told(stop=Impatient()),
        "a shard": told(data=files),
        "uoro": told(method=bptt.UORO()),
        "least squares": told(
            data=with_lanes(),
            method=bptt.Full(),
            optimizer=bptt.optimize.LeastSquares(),
        ),
        "starts": told(starts=2),
        "and then": told(),
    }


def die(rank: int) -> str:
    def fall(progress: bptt.Progress) -> None:
        if rank == 1:
            os._exit(3)

    return told(callbacks=[fall])


def work(rank: int, world: int, folder: str, failing: bool) -> None:
    """One of several processes: all cases, and then what goes wrong, if it is to."""
    warnings.simplefilter("ignore", bptt.NonFiniteWarning)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet{world}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    results: dict[str, Any] = {name: found(run, Path(folder)) for name, run in CASES.items()}
    results["unbroken"] = found(broken(), Path(folder))
    if failing:
        results |= failures(rank)
        if rank != 1:
            results["the death of another"] = die(rank)
    (Path(folder) / f"{world}-{rank}.json").write_text(json.dumps(results))
    if failing and rank == 1:
        die(rank)


def main(folder: Path) -> None:
    """What torchrun starts, and starts again: process 1 is killed once, in the second epoch."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    join_processes("gloo", timeout=timedelta(seconds=60))
    again = int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0

    def killed(progress: bptt.Progress) -> None:
        if dist.get_rank() == 1 and progress.updates == 17 and not again:
            os.kill(os.getpid(), signal.SIGKILL)

    killed.every = 1
    saved = bptt.Checkpoint(folder / "checkpoints", every=5, share=math.inf)
    before = len(list((folder / "checkpoints").glob("checkpoint-*")))
    result = found(broken(checkpoint=saved, resume=True, callbacks=[killed]), folder)
    (folder / f"restarted-{dist.get_rank()}.json").write_text(
        json.dumps({"restarted": result, "again": again, "checkpoints": before})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
