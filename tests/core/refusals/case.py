"""One case of bad input, and ways to hand it over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import bptt
from bptt import BpttError

from ..helpers import BACKEND, data, network, series

Act = Callable[[bptt.Network], Any]


@dataclass(frozen=True)
class Case:
    """What is done, to which network, and what the message must say."""

    name: str
    error: type[BpttError]
    message: str
    act: Act
    net: Callable[[], bptt.Network] = network


def train(stream: Any = None, loss: Any = "mse", method: Any = None, state: Any = None) -> Act:
    """One pass over a stream, which must never come to an update."""

    def act(net: bptt.Network) -> None:
        given = series(6) if stream is None else stream
        chosen = bptt.Truncated(3) if method is None else method
        for _ in chosen.updates(net, loss, given, state):
            pytest.fail("an update was made of bad input")

    return act


def option(make: Callable[[], Any]) -> Act:
    """Something that is refused when it is made."""
    return lambda net: make()


def unfold(*args: Any, **options: Any) -> Act:
    return lambda net: bptt.unfold(net.cell, *args, **{"backend": BACKEND, **options})


GOOD = data(5, 2)
LANED = data(5, 3, 2)
