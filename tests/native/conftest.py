"""The fixture `isa` forces an instruction set: one test for each that this CPU supports."""

from collections.abc import Iterator

import pytest

_core = pytest.importorskip("bptt._core")


@pytest.fixture(params=[name for name, usable in _core.variants().items() if usable])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(None)
