"""One item ahead in another thread."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bptt
from bptt.segments import one_ahead


def test_one_ahead_gives_the_same_items_and_restores_the_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(one_ahead(iter(range(5)))) == list(range(5))
        assert list(one_ahead(iter(()))) == []
        items = one_ahead(iter(range(5)))
        next(items)
        assert torch.get_num_threads() == 1
        items.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_the_other_thread_comes_through() -> None:
    def items() -> Any:
        yield 1
        raise bptt.DataError("row 7")

    with pytest.raises(bptt.DataError, match="row 7"):
        list(one_ahead(items()))
