"""Runs that can be broken anywhere, and what of them is compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bptt

ALWAYS = math.inf


class Died(Exception):
    """As if the process had died: nothing is saved or cleaned up in answer to it."""


class Run:
    """A network, its optimizer and what else `fit` is given, made anew as a new process would."""

    def __init__(self, optimizer: Callable[[Any], Any] | None = None, **options: Any) -> None:
        torch.manual_seed(0)
        self.network = options.pop("network", lambda: net())()
        make = optimizer or (lambda p: torch.optim.Adam(p, 0.01))
        self.optimizer = make(self.network.parameters())
        self.stream = options.pop("stream", lambda: stream())()
        scheduler = options.pop("scheduler", None)
        self.scheduler = scheduler and scheduler(self.optimizer)
        self.options = {k: v() if k in ("stop", "method") else v for k, v in options.items()}

    def fit(self, folder: Path | None = None, die: int | None = None, **more: Any) -> Any:
        options = {"method": bptt.Truncated(9, 4), "epochs": 3, **self.options, **more}
        callbacks = list(options.pop("callbacks", []))
        if die is not None:

            def callback(progress: bptt.Progress) -> None:
                if progress.updates == die:
                    raise Died

            callback.every = 1  # type: ignore[attr-defined]  # a function's own attribute
            callbacks.append(callback)
        if folder is not None:
            every = options.pop("every", 1)
            options["checkpoint"] = bptt.Checkpoint(folder, every=every, share=ALWAYS)
        return bptt.fit(
            self.network,
            self.stream,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            callbacks=callbacks,
            progress=False,
            **options,
        )

    @property
    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.network.parameters()])


def net(dropout: float = 0.0, **options: Any) -> bptt.Network:
    options = {"backend": "eager", **options}  # nothing has to be traced
    readout = nn.Sequential(nn.Dropout(dropout), nn.Linear(5, 1)) if dropout else nn.Linear(5, 1)
    return bptt.Network(bptt.cells.GRU(1, 5), readout, **options)


def wave(steps: int = 60) -> Tensor:
    time = torch.arange(steps, dtype=torch.float32)
    return torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time)


def stream(**options: Any) -> bptt.Stream:
    return bptt.Stream(wave(), horizon=1, **options)


def timeless(history: bptt.History) -> list[Any]:
    """All of a history that does not come from a clock."""
    clocks = {"seconds", "steps_per_second"}
    epochs = [{k: v for k, v in vars(e).items() if k not in clocks} for e in history.epochs]
    return [{**vars(history), "epochs": epochs}]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "lbfgs": lambda p: torch.optim.LBFGS(
        p, max_iter=3, history_size=4, line_search_fn="strong_wolfe"
    ),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "rprop": lambda p: torch.optim.Rprop(p),
    "groups": lambda p: torch.optim.AdamW([{"params": [q], "lr": 0.01} for q in p]),
}
