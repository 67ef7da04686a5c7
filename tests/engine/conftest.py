"""What the engine's tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

_CALL = nn.Module.__call__


@pytest.fixture(autouse=True)
def _nothing_stays_patched() -> Iterator[None]:
    """PyTorch's tracers patch the modules' calls for a while: two of them at once, for good."""
    yield
    assert nn.Module.__call__ is _CALL


def require_core() -> None:
    """Skip where the core is not built; fail if BPTT_REQUIRE_NATIVE=1 says that it must be."""
    if importlib.util.find_spec("bptt._core") is None:
        assert os.environ.get("BPTT_REQUIRE_NATIVE") != "1", "bptt._core is not built"
        pytest.skip("bptt._core is not built")


@pytest.fixture
def core() -> None:
    """For tests of the native executor."""
    require_core()


@pytest.fixture(params=["interpreted", "native"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Each kernel in turn."""
    if request.param == "native":
        require_core()
    name: str = request.param
    return name


@pytest.fixture
def double() -> Iterator[None]:
    """What a test makes is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
