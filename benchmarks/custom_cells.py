"""A cell of one's own, a layer-normalised GRU: `bptt.unfold` beside the loop one would write.

    python benchmarks/custom_cells.py [--json docs/figures/custom_cells.json]

Float32, forward and backward, gradients of all parameters. The loop is plain PyTorch, its input
projection inside the cell as the cell has it; on one thread and on two, the better one counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import headline, machine, readable, table, time_in_turn, with_threads, write
from torch import Tensor, nn

import bptt

WORKS = [(200, 1, 64), (100, 32, 128), (50, 64, 512)]
BARS = {(200, 1, 64): 80, (100, 32, 128): 5, (50, 64, 512): 1.5}


class LayerNormGRU(nn.Module):
    """A GRU whose projections are normalised, after Ba, Kiros and Hinton (2016)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 3 * hidden_size, bias=False)
        self.from_state = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.norm_input = nn.LayerNorm(3 * hidden_size)
        self.norm_state = nn.LayerNorm(3 * hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        u = self.norm_input(self.from_input(input)).chunk(3, dim=1)
        v = self.norm_state(self.from_state(state)).chunk(3, dim=1)
        reset, keep = torch.sigmoid(u[0] + v[0]), torch.sigmoid(u[1] + v[1])
        new = torch.tanh(u[2] + reset * v[2])
        return new + keep * (state - new)


def contestants(steps: int, lanes: int, hidden: int) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    cell = LayerNormGRU(hidden, hidden)
    x, seed = torch.randn(steps, lanes, hidden), torch.randn(steps, lanes, hidden)

    def ours() -> tuple[Tensor, list[Tensor]]:
        cell.zero_grad()
        outputs, _ = bptt.unfold(cell, x)
        outputs.backward(seed)
        return outputs.detach(), [p.grad for p in cell.parameters()]

    def loop() -> tuple[Tensor, list[Tensor]]:
        cell.zero_grad()
        state = torch.zeros(lanes, hidden)
        outputs = []
        for step in x.unbind(0):
            state = cell(step, state)
            outputs.append(state)
        stacked = torch.stack(outputs)
        stacked.backward(seed)
        return stacked.detach(), [p.grad for p in cell.parameters()]

    one, other = ours(), loop()
    for a, b in zip([one[0], *one[1]], [other[0], *other[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    return {
        "bptt, 2 threads": with_threads(2, ours),
        "bptt, 1 thread": with_threads(1, ours),
        "loop, 1 thread": with_threads(1, loop),
        "loop, 2 threads": with_threads(2, loop),
    }


def measure(work: tuple[int, int, int], peaks: dict[str, Any], rounds: int) -> dict[str, Any]:
    steps, lanes, hidden = work
    timings = time_in_turn(contestants(*work), rounds=rounds)
    medians = {name: timing.median for name, timing in timings.items()}
    mine = medians["bptt, 2 threads"]
    rival = min(medians["loop, 1 thread"], medians["loop, 2 threads"])
    products = 2.0 * steps * lanes * 3 * hidden * 5 * hidden / 1e9
    return {
        "work": work,
        "seconds": medians,
        "against_loop": rival / mine,
        "bar": BARS[work],
        "peak_share_2": products / mine / peaks["peak_2"],
        "peak_share_1": products / medians["bptt, 1 thread"] / peaks["peak_1"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    peaks = machine()
    print(headline(peaks))
    results = [measure(work, peaks, options.rounds) for work in WORKS]
    rows = [
        [
            "{} × {} × {}".format(*r["work"]),
            readable(r["seconds"]["bptt, 2 threads"]),
            readable(r["seconds"]["bptt, 1 thread"]),
            readable(min(r["seconds"]["loop, 1 thread"], r["seconds"]["loop, 2 threads"])),
            f"{r['against_loop']:.1f}× (≥ {r['bar']})",
            f"{r['peak_share_2']:.0%}",
            f"{r['peak_share_1']:.0%}",
        ]
        for r in results
    ]
    header = [
        "time × batch × hidden",
        "bptt ms",
        "1 thread",
        "Python loop ms",
        "against the loop",
        "of peak, 2",
        "of peak, 1",
    ]
    print(table(header, rows))
    write(options.json, {"machine": peaks, "results": results})


if __name__ == "__main__":
    main()
