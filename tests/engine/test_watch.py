"""`bptt._core.Watch`: what it says beside plain comparisons, whatever happens to the objects."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bptt.engine.frontend.module_state import _Watch

_core = pytest.importorskip("bptt._core")


class Thing:
    """An object with attributes, written as programs write them."""

    def __init__(self) -> None:
        self.a, self.b = 1.5, "b"

    def write(self, a: Any, b: Any) -> None:
        """Through the interpreter's own, specialised instructions."""
        self.a = a
        self.b = b


VALUES: list[Any] = [1.5, 2.5, "b", "c", None]
CHANGES = st.tuples(
    st.sampled_from(["write", "setattr", "set", "delete", "add", "update", "nothing", "clear"]),
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
)


def apply(change: tuple[str, Any, Any], thing: Thing) -> None:
    kind, one, other = change
    table = thing.__dict__
    if kind == "write":
        for _ in range(3):
            thing.write(one, other)
    elif kind == "setattr":
        setattr(thing, "ab"[VALUES.index(other) % 2], one)
    elif kind == "set":
        table["a"] = one
    elif kind == "delete":
        table.pop("b", None)
    elif kind == "add":
        table[f"more {other}"] = one
    elif kind == "update":
        table.update(a=one, b=other)
    elif kind == "clear":
        table.clear()


@given(st.lists(CHANGES, max_size=12))
def test_attributes(changes: list[tuple[str, Any, Any]]) -> None:
    thing = Thing()
    for _ in range(20):
        thing.write(VALUES[0], VALUES[2])
    table = thing.__dict__
    same = [(table, "a", VALUES[0]), (table, "b", VALUES[2])]
    watch, plain = _core.Watch(same, [(table, 2)]), _Watch(same, [(table, 2)], [])
    equal = _core.Watch([], [], equal=[(table, "a", VALUES[0])])
    for change in changes:
        apply(change, thing)
        for _ in range(2):
            assert watch.holds() == plain.holds()
            assert equal.holds() == (table.get("a") == VALUES[0])


def test_an_equal_value_is_equal_but_not_the_same() -> None:
    table: dict[str, Any] = {"rate": float("0.25")}
    same = _core.Watch([(table, "rate", table["rate"])], [])
    equal = _core.Watch([], [], equal=[(table, "rate", table["rate"])])
    table["rate"] = float("0.250")
    assert not same.holds()
    assert equal.holds()
    table["rate"] = 0.5
    assert not equal.holds()


def test_lists() -> None:
    members = [object(), object()]
    watch = _core.Watch([(members, i, member) for i, member in enumerate(members)], [(members, 2)])
    assert watch.holds()
    members.reverse()
    assert not watch.holds()
    members.reverse()
    assert watch.holds()
    members.append(members[0])
    assert not watch.holds()
    del members[1:]
    assert not watch.holds()


def _freed(p: Tensor) -> None:
    p.requires_grad_(False)


def _graded(p: Tensor) -> None:
    p.grad = torch.zeros_like(p)


def _moved(p: Tensor) -> None:
    p.data = p.data.clone()


def _turned(p: Tensor) -> None:
    p.data = p.data.t()


def _read_otherwise(p: Tensor) -> None:
    p.requires_grad_(False)
    p.data = p.data.view(torch.int32)


def _cut(p: Tensor) -> None:
    p.data = p.data[:2]


@pytest.mark.parametrize("change", [_freed, _graded, _moved, _turned, _cut, _read_otherwise])
def test_places(change: Callable[[Tensor], None]) -> None:
    parameter = nn.Parameter(torch.randn(3, 4))
    parameter.requires_grad_(change is not _read_otherwise)
    watch = _core.Watch([], [], places=[(parameter, parameter.requires_grad)])
    with torch.no_grad():
        parameter.mul_(2.0)
    assert watch.holds()
    change(parameter)
    assert not watch.holds()


def test_kinds() -> None:
    parameter = nn.Parameter(torch.randn(3, 4))
    entry = (parameter, True, torch.float32, parameter.shape)
    watch = _core.Watch([], [], [entry])
    assert watch.holds()
    parameter.data = parameter.data.double()
    assert not watch.holds()


@pytest.mark.parametrize(
    "given",
    [
        {"same": [(1, 2)]},
        {"same": [(object(), "a", 1)]},
        {"sizes": [({}, 0, 1)]},
        {"tensors": [(torch.zeros(1), True)]},
        {"places": [(object(), True)]},
        {"equal": [([], 0, 1)]},
    ],
)
def test_what_cannot_be_watched_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _core.Watch(**({"same": [], "sizes": []} | given))


def test_a_cycle_is_collected() -> None:
    thing = Thing()
    thing.write(_core.Watch([(thing.__dict__, "b", "b")], []), "b")
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
