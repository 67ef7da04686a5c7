"""Whole models before and after `bptt.nn.accelerate`: one training step, end to end.

    python benchmarks/models.py [--json docs/figures/models.json]

Float32, forward, backward and an SGD step. A model and its accelerated copy take turns, each on one
thread and on two, the better one counts. Outputs and gradients are compared first.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from harness import machine, readable, table, time_in_turn, with_threads, write
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import bptt
from bptt.nn import accelerate


class Tagger(nn.Module):
    """Words, packed, through a bidirectional LSTM to tags (Huang, Xu and Yu, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5000, 100)
        self.lstm = nn.LSTM(100, 100, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(200, 17)
        self.lengths = torch.linspace(12, 48, 32).long()

    def forward(self, words: Tensor) -> Tensor:
        sequence = pack_padded_sequence(self.embed(words), self.lengths, True, False)
        return self.tag(pad_packed_sequence(self.lstm(sequence)[0], batch_first=True)[0])


class Speech(nn.Module):
    """Spectrograms through a convolution and three bidirectional GRUs (Amodei et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(80, 128, 11, stride=2, padding=5)
        self.rnn = nn.GRU(128, 128, num_layers=3, bidirectional=True)
        self.out = nn.Linear(256, 29)

    def forward(self, sound: Tensor) -> Tensor:
        return self.out(self.rnn(torch.relu(self.conv(sound)).permute(2, 0, 1))[0])


class Controller(nn.Module):
    """Sensors of a robot through a plain recurrent layer to motors, one lane at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sense = nn.Linear(24, 32)
        self.rnn = nn.GRU(32, 64)
        self.move = nn.Linear(64, 6)

    def forward(self, seen: Tensor) -> Tensor:
        return self.move(self.rnn(torch.tanh(self.sense(seen)))[0])


MODELS: dict[str, tuple[type[nn.Module], Callable[[], Tensor], str]] = {
    "sequence tagger": (Tagger, lambda: torch.randint(0, 5000, (32, 48)), "packed BiLSTM, 32 × 48"),
    "speech stack": (Speech, lambda: torch.randn(8, 80, 400), "3 BiGRUs, 8 × 200"),
    "controller": (Controller, lambda: torch.randn(500, 1, 24), "GRU, 1 × 500"),
}


def step(model: nn.Module, given: Tensor) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = (model(given) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def agree(one: nn.Module, other: nn.Module, given: Tensor) -> None:
    """Refuse to time what computes something else."""
    found = []
    for model in (one, other):
        (model(given) ** 2).mean().backward()
        found.append([model(given).detach(), *[p.grad for p in model.parameters()]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def measure(name: str, rounds: int) -> dict[str, Any]:
    make, draw, shape = MODELS[name]
    torch.manual_seed(0)
    slow, given = make(), draw()
    fast = copy.deepcopy(slow)
    accelerate(fast)
    agree(fast, slow, given)
    entries = {
        f"{label}, {threads}": with_threads(threads, step(model, given))
        for label, model in (("accelerated", fast), ("original", slow))
        for threads in (2, 1)
    }
    medians = {n: t.median for n, t in time_in_turn(entries, rounds=rounds).items()}
    best = {
        label: min(medians[f"{label}, {threads}"] for threads in (1, 2))
        for label in ("accelerated", "original")
    }
    return {"model": name, "shape": shape, "seconds": medians, **best}


def row(result: dict[str, Any]) -> list[str]:
    ratio = result["original"] / result["accelerated"]
    times = [readable(result["original"]), readable(result["accelerated"])]
    return [result["model"], result["shape"], *times, f"{ratio:.2f}×"]


HEADER = ["model", "layers, batch × steps", "original ms", "accelerated ms", "ratio"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    results = [measure(name, options.rounds) for name in MODELS]
    print(table(HEADER, [row(result) for result in results]))
    write(options.json, {"machine": machine(), "version": bptt.__version__, "results": results})


if __name__ == "__main__":
    main()
