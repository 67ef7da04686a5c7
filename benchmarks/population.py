"""Evaluating a population of weights: unfold member by member natively, or all side by side.

python benchmarks/population.py --json population.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.func import functional_call, vmap

import bptt

WORK = [(250, 1, 1, 16), (250, 1, 1, 64), (100, 32, 2, 32), (30, 32, 2, 64)]
MEMBERS = 32


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    run()
    found = []
    for _ in range(repeats):
        began = time.thread_time()
        run()
        found.append(time.thread_time() - began)
    return statistics.median(found)


def measure(steps: int, lanes: int, features: int, hidden: int) -> dict[str, object]:
    torch.manual_seed(0)
    network = bptt.Network(bptt.cells.GRU(features, hidden), torch.nn.Linear(hidden, 1))
    inputs = torch.randn(steps, lanes, features)
    own = dict(network.named_parameters())
    members = {n: p.detach() + 0.01 * torch.randn(MEMBERS, *p.shape) for n, p in own.items()}

    @torch.no_grad()
    def one_by_one() -> None:
        for i in range(MEMBERS):
            for name, parameter in own.items():
                parameter.copy_(members[name][i])
            network(inputs)

    @torch.no_grad()
    def side_by_side() -> None:
        vmap(lambda p: functional_call(network, p, (inputs,))[0])(members)

    return {
        "work": [steps, lanes, features, hidden],
        "members": MEMBERS,
        "native, one by one": seconds(one_by_one),
        "torch.vmap, side by side": seconds(side_by_side),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(*work) for work in WORK]
    for found in results:
        one, side = found["native, one by one"], found["torch.vmap, side by side"]
        print(
            f"{found['work']}: native {1e3 * one:.1f} ms, vmap {1e3 * side:.1f} ms, "
            f"ratio {side / one:.1f}"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
