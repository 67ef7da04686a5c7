"""torchrl: its LSTM and GRU modules, with episodes that start inside a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.modules import GRUModule, LSTMModule, set_recurrent_mode

import bptt

from .common import Pair, accelerated, main

FEATURES, HIDDEN, STEPS, LANES = 6, 64, 100, 16


# [adapt]
def adapted(module: LSTMModule | GRUModule) -> bptt.nn.Report:
    """After the module was made; one that was made with ``python_based=True`` goes back first."""
    module.make_cudnn_based()
    return bptt.accelerate(module)


# [/adapt]


def case(
    kind: type[nn.Module],
    change: Callable[[nn.Module], bptt.nn.Report] = adapted,
    python_based: bool = False,
    every: int = 40,
    steps: int = STEPS,
) -> Callable[[], Pair]:
    states = ["h", "c"] if kind is LSTMModule else ["h"]

    def make() -> Pair:
        module = kind(
            input_size=FEATURES,
            hidden_size=HIDDEN,
            in_keys=["seen", *states],
            out_keys=["told", *(("next", name) for name in states)],
            python_based=python_based,
        )
        starts = torch.zeros(LANES, steps, 1, dtype=torch.bool)
        for lane in range(LANES):
            starts[lane, (3 * lane + 7) % every :: every] = True
        data = TensorDict(
            {
                "seen": torch.randn(LANES, steps, FEATURES),
                "is_init": starts,
                **{name: torch.zeros(LANES, steps, 1, HIDDEN) for name in states},
            },
            [LANES, steps],
        )

        def call(one: nn.Module) -> Tensor:
            with set_recurrent_mode(True):
                return one(data.clone())["told"]

        return accelerated(module, change, call, steps, LANES)

    return make


CASES = {
    "LSTMModule": case(LSTMModule),
    "GRUModule": case(GRUModule),
    "LSTMModule, no start": case(LSTMModule, every=10**6),
    "GRUModule, no start": case(GRUModule, every=10**6),
    "LSTMModule, made python-based": case(LSTMModule, python_based=True),
    "GRUModule, made python-based": case(GRUModule, python_based=True),
    "LSTMModule, left python-based": case(LSTMModule, bptt.accelerate, python_based=True),
}

if __name__ == "__main__":
    main("torchrl", CASES)
