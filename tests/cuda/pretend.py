"""A device that is none: its tensors lie in the CPU's memory, and behave as those of a GPU do.

It finds what would fail on a GPU on machines without one. A tensor of the device holds one of the
CPU's, and every operator runs on what is held, once it has been checked that no operand lies
elsewhere: a tensor of the CPU beside one of the device is an error, as it is on a GPU, unless it
has no dimensions, is copied, or indexes. So are ``numpy()`` and whatever else needs its memory.

It is PyTorch's key for backends from outside, written in Python, and stays for as long as the
process lives: `tests.cuda.__main__` runs in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
DEVICE = torch.device("cpu")
"""The device, once `install` made it."""

_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default}
_ORDERED = {_aten._pack_padded_sequence.default, _aten._pad_packed_sequence.default}
"""Which lanes and how many is told on the CPU."""

_INDEXED = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
}


def why_not() -> str | None:
    """Why there can be no such device; None if there can."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return "this PyTorch takes no backend that is written in Python"
    return None


class Pretended(Tensor):
    """A tensor of the device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        """PyTorch refuses it for classes of tensors; of a GPU's it copies."""
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretended:
        made = Pretended(self.held.clone()).requires_grad_(self.requires_grad)
        made.__dict__ = {**self.__dict__, "held": made.held}  # whether it is a parameter
        return memo.setdefault(id(self), made)

    def __repr__(self, **_: Any) -> str:
        return f"pretended {self.held!r}"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        _check(function, args, kwargs)
        to = kwargs.get("device")
        given, named = tree_map(_held, (args, kwargs))
        if to is not None:
            named["device"] = torch.device("cpu")
        with _generator(function):
            result = _FUSED.get(function, function)(*given, **named)
        if to is not None and to.type == "cpu":
            return result
        if function in _ORDERED:
            return Pretended(result[0]), result[1]
        known = {id(t.held): t for t in tree_leaves((args, kwargs)) if isinstance(t, Pretended)}
        return tree_map(lambda value: _pretended(value, known), result)


class _Module:
    """What ``torch.cuda`` is to GPUs: the device draws from a generator of its own."""

    state = torch.Generator().manual_seed(0).get_state()

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)

    def manual_seed_all(self, seed: int) -> None:
        # Not what the CPU draws from this seed.
        self.state = torch.Generator().manual_seed(seed + 1).get_state()

    def get_rng_state(self, device: Any = 0) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: Any = 0) -> None:
        self.state = state.clone()

    def get_rng_state_all(self) -> list[Tensor]:
        return [self.get_rng_state()]

    def set_rng_state_all(self, states: list[Tensor]) -> None:
        (self.state,) = states


MODULE = _Module()


@contextmanager
def _generator(function: Any) -> Iterator[None]:
    """The CPU's generator, which is what runs, stands in for the device's."""
    if torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()):
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(MODULE.state)
    try:
        yield
    finally:
        MODULE.state = torch.get_rng_state()
        torch.set_rng_state(before)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Pretended) else value


def _pretended(value: Any, known: dict[int, Pretended]) -> Any:
    """A result as a tensor of the device; what an operator changed in place is what it was."""
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else Pretended(value)


def _check(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse operands that lie elsewhere."""
    if function in _COPIES | _ORDERED:
        return
    checked = args[:1] + args[2:] if function in _INDEXED else args
    for value in tree_leaves((checked, kwargs)):
        if isinstance(value, Tensor) and not isinstance(value, Pretended) and value.dim():
            raise RuntimeError(
                f"{function}: expected all tensors to be on the same device, but found "
                f"{DEVICE} and {value.device} ({list(value.shape)})"
            )


def _lstm_cell(
    of_input: Tensor,
    of_hidden: Tensor,
    cell: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """GPUs' fused cells, which the CPU has not, in plain operators."""
    gates = _biased(of_input, input_bias) + _biased(of_hidden, hidden_bias)
    i, f, g, o = gates.chunk(4, 1)
    new = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * new.tanh(), new, gates


def _gru_cell(
    of_input: Tensor,
    of_hidden: Tensor,
    hidden: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Likewise."""
    given = _biased(of_input, input_bias).chunk(3, 1)
    own = _biased(of_hidden, hidden_bias).chunk(3, 1)
    r, z = (given[0] + own[0]).sigmoid(), (given[1] + own[1]).sigmoid()
    n = (given[2] + r * own[2]).tanh()
    return n + z * (hidden - n), z


def _biased(values: Tensor, bias: Tensor | None) -> Tensor:
    return values if bias is None else values + bias


def _reverse_alone(cell: Any) -> Any:
    """Forward mode fails in GPUs' fused cells."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        if forward_ad._current_level >= 0:
            raise NotImplementedError(f"Trying to use forward AD with {cell.__name__}")
        return cell(*args, **kwargs)

    return refused


_FUSED = {
    _aten._thnn_fused_lstm_cell.default: _lstm_cell,
    _aten._thnn_fused_gru_cell.default: _gru_cell,
}
_FACTORIES = (
    _aten.eye.default,
    _aten.eye.m,
    _aten.arange.default,
    _aten.arange.start,
    _aten.arange.start_step,
    _aten.linspace.default,
    _aten.randperm.default,
)
"""Those that PyTorch would make by resizing, which a tensor of the device does not."""

_KEPT: list[Any] = []


def install() -> torch.device:
    """Make the device, once."""
    global DEVICE
    if _KEPT:
        return DEVICE
    backend_registration._setup_privateuseone_for_python_backend(NAME, MODULE)
    DEVICE = torch.device(NAME, 0)
    new = torch.library.Library("aten", "IMPL")
    new.impl("empty.memory_format", _empty, "PrivateUse1")
    new.impl("empty_strided", _empty_strided, "PrivateUse1")
    new.impl("_copy_from", _copy_from, "PrivateUse1")
    for function in _FACTORIES:
        new.impl(function, _factory(function), "PrivateUse1")
    new.impl("_efficientzerotensor", _zeros, "PrivateUse1")
    # Above autograd, which then differentiates what they are made of.
    new.impl("_thnn_fused_lstm_cell", _reverse_alone(_lstm_cell), "AutogradPrivateUse1")
    new.impl("_thnn_fused_gru_cell", _reverse_alone(_gru_cell), "AutogradPrivateUse1")
    _KEPT.append(new)
    # Backward passes run in this thread: there is none for the device.
    torch.autograd.set_multithreading_enabled(False)
    return DEVICE


def _empty(size: Any, **options: Any) -> Tensor:
    return Pretended(torch.empty(size, dtype=options.get("dtype")))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _held(target).copy_(_held(source))
    return target


def _factory(function: Any) -> Any:
    def make(*args: Any, **options: Any) -> Tensor:
        return Pretended(function(*args, **{**options, "device": torch.device("cpu")}))

    return make


def _zeros(size: Any, **options: Any) -> Tensor:
    return Pretended(torch.zeros(size, dtype=options.get("dtype")))


def _empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    return Pretended(torch.empty_strided(size, stride, dtype=options.get("dtype")))
