"""The scenarios on a GPU, beside the CPU; and what only a GPU can show."""

from __future__ import annotations

import pytest
import torch
from tests.cuda.__main__ import run
from tests.cuda.scenarios import SCENARIOS
from torch import nn

import bptt
from bptt import cells

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_on_the_cpu(name: str) -> None:
    wrong = run(name, torch.device("cuda", 0))
    assert wrong is None, wrong


def test_memory_is_held_within_the_budget() -> None:
    device = torch.device("cuda", 0)
    network = bptt.Network(cells.GRU(8, 64), nn.Linear(64, 1)).to(device)
    stream = bptt.Stream(torch.randn(4000, 8, 8), torch.randn(4000, 8, 1), device=device)
    method = bptt.Full(memory="24MB")
    assert method.plan(network, stream).segments > 1
    for _ in range(2):  # the first pass allocates workspaces that stay
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _update in method.updates(network, "mse", stream):
            network.zero_grad()
    assert torch.cuda.max_memory_allocated() - before <= 24_000_000
