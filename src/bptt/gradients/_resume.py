"""Where a pass stands, so that it can be saved and taken up again.

A pass is saved between two updates: after the last one was yielded, and applied by the caller. What
is saved are plain numbers, strings and lists, and beside them a flat dictionary of tensors, so that
JSON and safetensors can hold it; nothing needs `pickle`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bptt.errors import DataError, OptionError
from bptt.gradients._context import Carried, Context, Recomputed, Span, Stored
from bptt.gradients._update import check_stream, entering
from bptt.network import Network, check_trainable, place_of
from bptt.state import State, leaves
from bptt.streams import Batch, Stream, on_device


@dataclass(frozen=True)
class Traced:
    """What a forward method carries on: the state, and the trace of how it came about."""

    state: State | None
    trace: State | None = None


@dataclass(frozen=True)
class Place:
    """The last update of a pass: its batch, of these lanes and length, in this epoch of the
    stream; for windows also the window and what is carried on from it."""

    epoch: int
    batch: int
    lanes: int
    length: int
    span: Span | None = None
    context: Context | Traced | None = None

    @classmethod
    def at(
        cls,
        stream: Stream,
        index: int,
        batch: Batch,
        span: Span | None = None,
        context: Context | Traced | None = None,
    ) -> Place:
        """The place of an update about to be yielded."""
        return cls(stream.epoch, index, batch.lanes, batch.length, span, context)

    def check(self, batch: Batch) -> None:
        """Refuse a batch that is not the one in which the pass stood.

        Raises:
            DataError: its lanes or length are others.
        """
        if (batch.lanes, batch.length) != (self.lanes, self.length):
            raise DataError(
                f"the saved pass stood in a batch of {self.lanes} lane(s) of {self.length} steps, "
                f"but batch {self.batch} of this stream has {batch.lanes} of {batch.length}: it "
                "goes on with the stream that it was saved with."
            )


def begin(
    network: Network,
    stream: Stream,
    state: State | None,
    begun: Place | None,
    *,
    live: bool = False,
) -> tuple[Generator[Batch], State | None]:
    """Check what a pass is given; the batches of a new one, or of the rest of the interrupted one
    that had ``begun``, and the state that it starts from, both on the network's device.

    Raises:
        CellError: the network cannot be trained.
        OptionError: the stream or the given state does not fit.
        DataError: the stream's end is not in sight, and it need be (not ``live``).
    """
    check_trainable(network)
    check_stream(stream, live=live)
    batches = stream.batches() if begun is None else taken_up(stream, begun, state)
    place = place_of(network)
    return on_device(stream, batches, place), entering(stream, state, place)


def taken_up(stream: Stream, place: Place, state: State | None) -> Generator[Batch]:
    """The batches of the interrupted pass that are not done: where windows are left in it (there
    is a ``span``), beginning with the batch of ``place`` itself.

    Raises:
        OptionError: the stream stands in another epoch, or a state was given.
    """
    if state is not None:
        raise OptionError(
            "a pass that is taken up goes on from its own state: leave the given state out."
        )
    if stream.epoch != place.epoch:
        raise OptionError(
            f"the saved pass belongs to epoch {place.epoch} of its stream, but this stream stands "
            f"at epoch {stream.epoch}: load the stream's state_dict as well."
        )
    return stream.resumed(place.batch + (place.span is None))


def save(method: Any, place: Place | None) -> dict[str, Any]:
    """A method's options, its last state, and the place of its pass, if it is in one."""
    tensors: dict[str, Tensor] = {}
    return {
        "method": type(method).__name__,
        "options": _options(method),
        "state": _pack("state", method.state, tensors),
        "pass": None if place is None else _pack_place(place, tensors),
        "tensors": tensors,
    }


def load(method: Any, saved: dict[str, Any]) -> tuple[State | None, Place | None]:
    """The last state and the place out of what `save` gave.

    Raises:
        OptionError: it was saved by another method, or with other options.
    """
    name = type(method).__name__
    if saved.get("method") != name:
        raise OptionError(f"this is the state of {saved.get('method')!r}, not of a {name}.")
    here = _options(method)
    for option, value in here.items():
        before = saved["options"].get(option)
        if before != value:
            raise OptionError(
                f"the saved {name} had {option}={before!r}, this one has {value!r}: make it with "
                "the same options."
            )
    tensors = saved["tensors"]
    place = None if saved["pass"] is None else _unpack_place(saved["pass"], tensors)
    return _unpack(saved["state"], tensors), place


def mended(saved: dict[str, Any], initial: Callable[[int], State], every: bool) -> dict[str, Any]:
    """A saved method whose lanes with a NaN or an infinity in their state, or all lanes, go on
    from the initial state.

    Args:
        saved: from `save`.
        initial: the initial state of so many lanes.
        every: whether all lanes do.
    """
    place = saved["pass"]
    if place is None or place.get("carried") is None:
        return saved
    tensors = {name: tensor.clone() for name, tensor in saved["tensors"].items()}
    kept = [place["carried"], *place.get("visited", [])]
    bad = torch.full((place["lanes"],), every)
    for name in (name for plain in kept for name in _names(plain)):
        bad |= ~torch.isfinite(tensors[name].reshape(place["lanes"], -1)).all(1).cpu()
    # What came about through an old state says nothing of the new one; nor does what overflowed.
    trace = [] if place.get("trace") is None else _names(place["trace"])
    lost = bad.clone()
    for name in trace:
        lost |= ~torch.isfinite(tensors[name].reshape(place["lanes"], -1)).all(1).cpu()
    for name in trace:
        tensors[name][lost] = 0.0
    start = leaves(initial(place["lanes"]))
    for plain in kept:
        for name, leaf in zip(_names(plain), start, strict=True):
            tensors[name][bad] = leaf.detach()[bad].to(tensors[name])
    return {**saved, "tensors": tensors}


def _names(plain: Any) -> list[str]:
    """The names of a packed state's tensors, in the order of its leaves."""
    return [plain] if isinstance(plain, str) else [n for part in plain for n in _names(part)]


def _options(method: Any) -> dict[str, Any]:
    return {field.name: getattr(method, field.name) for field in fields(method) if field.init}


def _pack_place(place: Place, tensors: dict[str, Tensor]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "epoch": place.epoch,
        "batch": place.batch,
        "lanes": place.lanes,
        "length": place.length,
    }
    if place.span is not None and place.context is not None:
        span, context = place.span, place.context
        plain["span"] = [span.start, span.stop, span.first, span.follow]
        plain["context"] = type(context).__name__
        plain["carried"] = _pack("carried", context.state, tensors)
        if isinstance(context, Traced):
            plain["trace"] = _pack("trace", context.trace, tensors)
        elif isinstance(context, Stored):
            plain["visited"] = [
                _pack(f"visited.{i}", state, tensors) for i, state in enumerate(context.visited)
            ]
    return plain


def _unpack_place(plain: dict[str, Any], tensors: dict[str, Tensor]) -> Place:
    where = (plain["epoch"], plain["batch"], plain["lanes"], plain["length"])
    if "span" not in plain:
        return Place(*where)
    carried = _unpack(plain["carried"], tensors)
    context: Context | Traced
    if plain["context"] == "Traced":
        context = Traced(carried, _unpack(plain["trace"], tensors))
    elif plain["context"] == "Stored":
        context = Stored(carried, [_known(one, tensors) for one in plain["visited"]])
    elif plain["context"] == "Recomputed":
        context = Recomputed(carried)
    else:
        context = Carried(carried)
    return Place(*where, Span(*plain["span"]), context)


def _pack(name: str, state: State | None, tensors: dict[str, Tensor]) -> Any:
    """The names of a state's tensors, nested in lists as it is nested in tuples."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        tensors[name] = state.detach().clone()
        return name
    return [_pack(f"{name}.{i}", part, tensors) for i, part in enumerate(state)]


def _unpack(plain: Any, tensors: dict[str, Tensor]) -> State | None:
    return None if plain is None else _known(plain, tensors)


def _known(plain: Any, tensors: dict[str, Tensor]) -> State:
    if isinstance(plain, str):
        return tensors[plain].clone()
    return tuple(_known(part, tensors) for part in plain)
