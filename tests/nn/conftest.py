"""One thread and one seed for every test: small networks run fastest so, and alike everywhere."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)
