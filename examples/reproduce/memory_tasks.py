"""Long time lags: the adding, copying and temporal order problems.

S. Hochreiter and J. Schmidhuber, Long short-term memory (1997); R. Pascanu, T. Mikolov and
Y. Bengio, On the difficulty of training recurrent neural networks (2013); M. Arjovsky, A. Shah and
Y. Bengio, Unitary evolution recurrent neural networks (2016). An LSTM whose gates begin with time
constants spread up to the length of a sequence (C. Tallec and Y. Ollivier, Can recurrent neural
networks warp time?, 2018), Adam, gradients clipped to norm 1, fresh sequences in every update.

python examples/reproduce/memory_tasks.py
"""

import math
from collections.abc import Callable

import torch
from torch import nn

import bptt
from bptt import tasks


def train(
    make: Callable[[int], bptt.Stream],
    length: int,
    loss: str,
    sizes: tuple[int, int, int],
    updates: int,
    solved: float,
    rate: float,
) -> tuple[float, int]:
    """The loss on sequences that were never trained on, and after how many updates it was at most
    ``solved`` (or that there were ``updates``)."""
    torch.manual_seed(0)
    features, hidden, outputs = sizes
    cell = bptt.cells.LSTM(features, hidden)
    unseen = make(10**6)
    with torch.no_grad():
        cell.bias_ih.zero_()
        cell.bias_hh.zero_()
        spread = torch.empty(hidden).uniform_(1.0, length - 1.0).log()
        cell.bias_ih[:hidden] = -spread
        cell.bias_ih[hidden : 2 * hidden] = spread
    network = bptt.Network(cell, nn.Linear(hidden, outputs))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for count in range(1, updates + 1):
        for _ in bptt.Full().updates(network, loss, make(count)):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if count % 50 == 0 or count == updates:
            value = bptt.evaluate(network, unseen, loss).loss
            if value <= solved:
                return value, count
    return value, updates


def adding(length: int, hidden: int, updates: int, lanes: int) -> tuple[float, int]:
    """Predicting 1 costs 0.1667; solved is a tenth of that."""

    def make(seed: int) -> bptt.Stream:
        return tasks.adding(length, lanes, seed)

    return train(make, length, "mse", (2, hidden, 1), updates, 1 / 60, 5e-3)


def copying(delay: int, hidden: int, updates: int, lanes: int) -> tuple[float, int]:
    """Solved is a tenth of what guessing costs."""

    def make(seed: int) -> bptt.Stream:
        return tasks.copying(delay, lanes, seed)

    return train(
        make, delay + 20, "cross_entropy", (10, hidden, 10), updates, guess(delay) / 10, 5e-3
    )


def temporal_order(length: int, hidden: int, updates: int, lanes: int) -> tuple[float, int]:
    """Guessing costs ln 4; solved is a tenth of that."""

    def make(seed: int) -> bptt.Stream:
        return tasks.temporal_order(length, lanes, seed)

    return train(make, length, "cross_entropy", (6, hidden, 4), updates, math.log(4) / 10, 5e-3)


def guess(delay: int, symbols: int = 10) -> float:
    return symbols * math.log(8) / (delay + 2 * symbols)


def main(
    length: int = 100, delay: int = 20, hidden: int = 32, updates: int = 3000, lanes: int = 50
) -> dict[str, tuple[float, float, int]]:
    found = {
        "adding": (1 / 6, *adding(length, hidden, updates, lanes)),
        "copying": (guess(delay), *copying(delay, 2 * hidden, updates, lanes)),
        "temporal order": (math.log(4), *temporal_order(length, hidden, updates, lanes)),
    }
    for name, (chance, value, count) in found.items():
        print(f"{name:15} chance {chance:.4f}, reached {value:.4f} after {count} updates")
    return found


if __name__ == "__main__":
    main()
