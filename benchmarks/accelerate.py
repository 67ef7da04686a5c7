"""What `bptt.nn.accelerate` gains and loses: PyTorch's layers beside their replacements.

    python benchmarks/accelerate.py [--json docs/figures/accelerate.json] [--threads 2] [--quick]

RNN, GRU and LSTM in float32 over 24 to 1,000 steps, 1 to 256 lanes and 16 to 1,024 hidden units;
one and two layers, both directions, packed sequences; training (forward and backward, gradients of
all parameters) and inference. Three contestants take turns: PyTorch's layer, the replaced layer as
it chooses, and the replaced layer told to use the engine. Every ratio is PyTorch's time by ours:
below 1 the model became slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from harness import headline, machine, readable, table, time_in_turn, write
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import bptt
from bptt.nn import _costs

STEPS = (24, 100, 1000)
LANES = (1, 2, 4, 8, 16, 32, 64, 256)
HIDDEN = (16, 32, 64, 128, 256, 512, 1024)
MOST = 3e9
"""Multiply-adds of the largest work's forward pass: more only takes longer."""


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    kind: str
    steps: int
    lanes: int
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    packed: bool = False

    @property
    def operations(self) -> float:
        gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[self.kind]
        each = gates * self.hidden * (self.inputs + self.hidden)
        return float(self.steps * self.lanes * each * self.layers * (1 + self.bidirectional))

    def __str__(self) -> str:
        more = [f"{self.layers} layers"] if self.layers > 1 else []
        more += ["both directions"] if self.bidirectional else []
        more += ["packed"] if self.packed else []
        sizes = f"{self.steps} × {self.lanes} × {self.inputs} → {self.hidden}"
        return ", ".join([f"{self.kind} {sizes}", *more])


def works(quick: bool) -> Iterator[Work]:
    for kind in ("LSTM", "GRU", "RNN"):
        for hidden in HIDDEN[:: 2 if quick else 1]:
            for lanes in LANES[:: 2 if quick else 1]:
                for steps in STEPS[: 1 if quick else 3]:
                    work = Work(kind, steps, lanes, 7 if hidden < 128 else hidden // 2, hidden)
                    if work.operations <= MOST:
                        yield work
        yield Work(kind, 24, 64, 1, 64, layers=2)
        yield Work(kind, 60, 16, 64, 256, bidirectional=True)
        yield Work(kind, 50, 32, 16, 128, packed=True)


@contextmanager
def by_the_engine() -> Iterator[None]:
    """Replaced layers never leave a call to PyTorch's kernels."""
    before, _costs.CHOOSES = _costs.CHOOSES, False
    try:
        yield
    finally:
        _costs.CHOOSES = before


def call(layer: nn.Module, work: Work, training: bool) -> Callable[[], Any]:
    """One call; in training with its backward pass."""
    generator = torch.Generator().manual_seed(0)
    x: Any = torch.randn(work.steps, work.lanes, work.inputs, generator=generator)
    if work.packed:
        lengths = torch.linspace(work.steps / 2, work.steps, work.lanes).long().flip(0)
        x = pack_padded_sequence(x, lengths)

    def run() -> Any:
        if not training:
            with torch.no_grad():
                return layer(x)
        layer.zero_grad()
        outputs = layer(x)[0]
        data = outputs.data if isinstance(outputs, PackedSequence) else outputs
        return data.sum().backward()

    return run


def measure(work: Work, training: bool, rounds: int, target: float) -> dict[str, Any]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        options = {"num_layers": work.layers, "bidirectional": work.bidirectional}
        return getattr(nn, work.kind)(work.inputs, work.hidden, **options)

    replaced, forced = made(), made()
    for model in (replaced, forced):
        bptt.nn.accelerate(model)
    theirs, ours = call(made(), work, training), call(forced, work, training)

    def engine() -> Any:
        with by_the_engine():
            return ours()

    contestants = {"torch": theirs, "accelerated": call(replaced, work, training), "engine": engine}
    timings = time_in_turn(contestants, rounds=rounds, target=target)
    medians = {name: timing.median for name, timing in timings.items()}
    return {
        "work": asdict(work),
        "training": training,
        "seconds": medians,
        "ratio": medians["torch"] / medians["accelerated"],
        "engine_ratio": medians["torch"] / medians["engine"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=float, default=0.05, help="seconds a measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a fifth of the sizes")
    options = parser.parse_args()
    about = machine()
    torch.set_num_threads(options.threads)
    print(headline(about), flush=True)
    results, rows = [], []
    for work in works(options.quick):
        for training in (True, False):
            found = measure(work, training, options.rounds, options.target)
            results.append(found)
            seconds = found["seconds"]
            rows.append(
                [
                    str(work),
                    "training" if training else "inference",
                    readable(seconds["torch"]),
                    readable(seconds["accelerated"]),
                    f"{found['ratio']:.2f}×",
                    f"{found['engine_ratio']:.2f}×",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
            about["threads"] = options.threads
            write(options.json, {"machine": about, "results": results})
    header = ["layer", "mode", "torch.nn, ms", "accelerated, ms", "ratio", "of the engine"]
    print(table(header, rows))
    slower = [r for r in results if r["ratio"] < 0.97]
    print(f"{len(slower)} of {len(results)} rows below 0.97")


if __name__ == "__main__":
    main()
