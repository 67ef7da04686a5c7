"""`accelerate` and subclasses of PyTorch's layers: which are taken, and what stays as it was."""

from __future__ import annotations

import copy
import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import bptt.nn
from bptt.nn import accelerate, decelerate

from .helpers import gradients, needs_core, packed, same, unfolded_by_engine

F64 = torch.float64
T = TypeVar("T")


class Initialised(nn.LSTM):
    """As users write them: other weights to begin with, and something besides."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.note = "kept"
        self.head = nn.Linear(2, 2)

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.3, 0.3)

    def doubled(self) -> int:
        return 2 * self.hidden_size


class Further(Initialised):
    """A subclass of a subclass, which names its class in ``super``."""

    def reset_parameters(self) -> None:
        super(Further, self).reset_parameters()  # noqa: UP008 (as old code has it)


class Mixin:
    def hello(self) -> str:
        return "hello"


class Before(Mixin, nn.GRU):
    pass


class After(nn.GRU, Mixin):
    pass


class Generated(nn.RNN, Generic[T]):
    pass


class Slotted(nn.GRU):
    __slots__ = ("more",)


class Registered(nn.LSTM):
    """Its subclasses have to say their tag."""

    known: ClassVar[list[str]] = []

    def __init_subclass__(cls, tag: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.known.append(tag)


class Tagged(Registered, tag="one"):
    pass


class Doubled(nn.LSTM):
    """A forward around the parent's."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, last = super().forward(input, hx)
        return (output * 2 if isinstance(output, Tensor) else output), last


class Abstract(ABC, nn.RNNBase):
    """The wrapper of pytorch-forecasting: beside PyTorch's layer, not below it."""

    @abstractmethod
    def kind(self) -> str: ...

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> Any:
        output, last = super().forward(x, hx=hx)  # type: ignore[misc]  # of the other base
        return output, last


class Forecasting(Abstract, nn.GRU):
    def kind(self) -> str:
        return "gru"


class Named(nn.GRU):
    """A forward that names its class in ``super``."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, last = super(Named, self).forward(input, hx)  # noqa: UP008 (as old code has it)
        return (output + 1 if isinstance(output, Tensor) else output), last


TAKEN: list[type[Any]] = [
    Initialised,
    Further,
    Before,
    After,
    Generated,
    Slotted,
    Tagged,
]
AROUND: list[type[Any]] = [Doubled, Forecasting, Named]


def made(kind: type[Any]) -> tuple[Any, Any, Tensor]:
    """A layer, the same one accelerated, and an input."""
    torch.manual_seed(0)
    layer = kind(4, 5, num_layers=2, bidirectional=True, dtype=F64)
    fast = copy.deepcopy(layer)
    assert accelerate(fast, beneath=True).replaced == ("",)
    return layer, fast, torch.randn(6, 3, 4, dtype=F64)


@needs_core
@pytest.mark.parametrize("kind", [*TAKEN, *AROUND])
def test_computes_as_before_by_the_engine(kind: type[Any], monkeypatch: Any) -> None:
    layer, fast, x = made(kind)
    expected = layer(x)
    seen = unfolded_by_engine(monkeypatch)
    found = fast(x)
    assert seen
    same(found, expected)
    weights = list(layer.parameters()), list(fast.parameters())
    same(gradients(found, weights[1]), gradients(expected, weights[0]))
    same(fast(x, found[1]), layer(x, expected[1]))
    same(fast(packed(x, False)), layer(packed(x, False)))


@pytest.mark.parametrize("kind", TAKEN)
def test_taken_without_being_asked(kind: type[Any]) -> None:
    layer = kind(4, 5)
    title = f"{kind.__module__}.{kind.__name__}"
    (entry,) = accelerate(layer).entries
    assert entry.before == title
    assert entry.after.startswith(f"{title} (bptt.nn.")


@pytest.mark.parametrize("kind", [*TAKEN, *AROUND])
def test_what_stays(kind: type[Any]) -> None:
    """Class, names, printed form, weights' names, and the very object when all is undone."""
    layer, fast, _ = made(kind)
    assert isinstance(fast, kind)
    assert isinstance(fast, getattr(bptt.nn, fast.mode.split("_")[0]))
    assert repr(fast) == repr(layer)
    assert list(fast.state_dict()) == list(layer.state_dict())
    assert fast.__dict__.keys() == layer.__dict__.keys()
    assert type(fast).__qualname__ == kind.__qualname__
    assert accelerate(fast).replaced == ()
    assert decelerate(fast).replaced == ("",)
    assert type(fast) is kind


def test_attributes_and_methods_stay() -> None:
    _, fast, _ = made(Initialised)
    assert (fast.note, fast.doubled()) == ("kept", 10)
    fast.reset_parameters()
    assert fast.weight_hh_l0.abs().max() <= 0.3
    slotted = Slotted(4, 5)
    slotted.more = 3
    accelerate(slotted)
    assert slotted.more == 3
    again = type(fast)(4, 5)
    assert isinstance(again, Initialised)
    assert again(torch.randn(6, 3, 4))[0].shape == (6, 3, 5)


def test_registries_are_not_told() -> None:
    made(Tagged)
    assert Registered.known == ["one"]


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda m, p=p: pickle.loads(pickle.dumps(m, p)) for p in range(6)),
]


@pytest.mark.parametrize("kind", [*TAKEN, *AROUND])
def test_copies_and_pickles(kind: type[Any]) -> None:
    layer, fast, x = made(kind)
    expected = layer(x)
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    twins = [torch.load(buffer, weights_only=False)]
    twins += [make(fast) for make in COPIES if kind is not Slotted or make is not copy.copy]
    for twin in twins:
        assert type(twin) is type(fast)
        same(twin(x), expected)
        decelerate(twin)
        assert type(twin) is kind
        same(twin(x), expected)


def test_a_reduction_of_its_own() -> None:
    _, fast, x = made(Reduced)
    twin = pickle.loads(pickle.dumps(fast))
    assert type(twin) is type(fast)
    same(twin(x), fast(x))


class Reduced(nn.GRU):
    def __reduce__(self) -> Any:
        state = {k: v for k, v in self.__dict__.items() if k != "_flat_weight_refs"}
        options = {"num_layers": self.num_layers, "bidirectional": self.bidirectional}
        return _reduced, (type(self), self.input_size, self.hidden_size, options), state


def _reduced(kind: type[Any], *args: Any) -> Any:
    return kind(*args[:-1], **args[-1], dtype=F64)


class Endless(nn.LSTM):
    def reset_parameters(self) -> None:
        super(type(self), self).reset_parameters()


class EndlessToo(nn.LSTM):
    def reset_parameters(self) -> None:
        super(self.__class__, self).reset_parameters()


class Permuting(nn.LSTM):
    def permute_hidden(self, hx: Any, permutation: Any) -> Any:
        return hx


class Explicit(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return nn.GRU.forward(self, input, hx)


class Meta(type):
    pass


class Special(nn.GRU, metaclass=Meta):
    pass


class OwnKind(nn.RNNBase):
    def __init__(self, *args: Any) -> None:
        super().__init__("GRU", *args)


class Inheriting(bptt.nn.GRU):
    pass


REFUSED: list[tuple[type[Any], str]] = [
    (Endless, "calls super(self.__class__, ...)"),
    (EndlessToo, "calls super(self.__class__, ...)"),
    (Permuting, "overrides permute_hidden"),
    (Explicit, "does not call super().forward"),
    (Special, "metaclass Meta"),
    (OwnKind, "of its own kind"),
    (Inheriting, "nothing to do"),
]


@pytest.mark.parametrize(("kind", "why"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_refused(kind: type[Any], why: str) -> None:
    layer = kind(4, 5)
    (entry,) = accelerate(layer, beneath=True).entries
    assert not entry.replaced
    assert why in entry.note
    assert type(layer) is kind


def test_written_as_ours() -> None:
    (entry,) = decelerate(Inheriting(4, 5)).entries
    assert entry.note == "a class that was written as a subclass of bptt.nn's"


@pytest.mark.parametrize("kind", AROUND)
def test_a_forward_around_is_taken_when_asked_for(kind: type[Any]) -> None:
    layer = kind(4, 5)
    (entry,) = accelerate(layer).entries
    assert not entry.replaced
    assert "beneath=True" in entry.note
    (entry,) = accelerate(layer, beneath=True).entries
    assert entry.replaced
    assert "super().forward was replaced" in entry.note


def test_a_forward_around_runs_once() -> None:
    """Also where the layer's own computation is begun anew: autocast, compiled packed sequences."""
    layer, fast, _ = made(Doubled)
    layer, fast, x = layer.float(), fast.float(), torch.randn(6, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fast(x)
    same(found, layer(x), 1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: fast(packed(x, False)), backend="eager")
    same(compiled(x)[0], layer(packed(x, False))[0], 1e-5)


@needs_core
@pytest.mark.parametrize("kind", [Initialised, Doubled, Forecasting])
def test_compiled_and_exported_without_a_break(kind: type[Any]) -> None:
    torch._dynamo.reset()
    _, fast, x = made(kind)
    expected = fast(x)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    same(compiled(x), expected)
    same(torch.export.export(fast, (x,)).module()(x), expected)
    same(torch.export.export(fast, (x,), strict=True).module()(x), expected)


def test_a_class_patched_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the subclass, or of PyTorch's own: what was put there is called."""
    plain = nn.LSTM.forward

    def tripled(self: Any, input: Any, hx: Any = None) -> Any:
        output, last = plain(self, input, hx)
        return output * 3, last

    layer, fast, x = made(Initialised)
    ours = bptt.nn.LSTM(4, 5, dtype=F64)
    expected, alone = layer(x)[0], ours(x)[0]
    monkeypatch.setattr(Initialised, "forward", tripled)
    same(fast(x)[0], 3 * expected)
    monkeypatch.undo()
    same(fast(x)[0], expected)
    monkeypatch.setattr(nn.LSTM, "forward", tripled)
    same(fast(x)[0], 3 * expected)
    same(ours(x)[0], 3 * alone)
    torch._dynamo.reset()
    same(torch.compile(ours, backend="eager")(x)[0], 3 * alone)
    (entry,) = accelerate(nn.LSTM(4, 5)).entries
    assert "forward was replaced" in entry.note


@pytest.mark.parametrize("kind", [nn.GRU, Initialised])
def test_parametrized_there_and_back(kind: type[Any]) -> None:
    """A class that `parametrize` made, before acceleration or after it."""
    x = torch.randn(6, 3, 4, dtype=F64)
    layer = kind(4, 5, dtype=F64)
    fast = copy.deepcopy(layer)
    accelerate(fast)
    for each in (layer, fast):
        parametrizations.weight_norm(each, "weight_hh_l0")
        each.parametrizations.weight_hh_l0.original0.data.mul_(2)
    expected = layer(x)
    same(fast(x), expected)
    assert decelerate(fast).replaced == ("",)
    assert not isinstance(fast, bptt.nn._drop_in.Unfolded)
    same(fast(x), expected)
    assert accelerate(layer).replaced == ("",)
    same(layer(x), expected)
    for each, back in ((layer, True), (fast, False)):
        parametrize.remove_parametrizations(each, "weight_hh_l0")
        assert isinstance(each, bptt.nn._drop_in.Unfolded) is back
        same(each(x), expected)
    decelerate(layer)
    assert type(layer) is type(fast) is kind
