"""Nested Python values as JSON and a flat dictionary of tensors, and back; nothing needs `pickle`.

JSON has no tensors, tuples, infinities, nor keys other than strings: these become
``{"$": kind, "value": ...}``. What is none of the known kinds is refused, never guessed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import CheckpointError

MARK = "$"


@dataclass
class Packed:
    """A value as ``plain``, which JSON can hold, and the ``tensors`` that it names."""

    plain: Any
    tensors: dict[str, Tensor] = field(default_factory=dict)


def pack(value: Any) -> Packed:
    """Take a value apart: None, bools, numbers, strings, tensors, and lists, tuples, dictionaries
    and counters of them, however nested.

    Tensors go to the CPU; one that appears twice is kept once, and comes back as one.

    Raises:
        CheckpointError: something in it is of another kind; its place is named.
    """
    packer = _Packer()
    return Packed(packer.plain(value, ""), packer.tensors)


def unpack(packed: Packed) -> Any:
    """The value that was packed.

    Raises:
        CheckpointError: it names a tensor that is not there, or a kind that is unknown.
    """
    try:
        return _value(packed.plain, packed.tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no tensor {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"the checkpoint's content is no packed value: {reason}.") from error


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._storages: set[int] = set()
        self._held: list[Tensor] = []

    def plain(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, np.bool_, np.integer)):
            return int(value) if not isinstance(value, np.bool_) else bool(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else _marked("float", str(float(value)))
        if isinstance(value, Tensor):
            return _marked("tensor", self._name(value, path))
        if isinstance(value, tuple):
            return _marked("tuple", self._all(value, path))
        if isinstance(value, list):
            return self._all(value, path)
        if isinstance(value, dict):
            return self._dictionary(value, path)
        raise CheckpointError(
            f"{path or 'the value'} is a {type(value).__name__}, which cannot be saved without "
            "running code when it is opened: let its state_dict() give numbers, strings, tensors, "
            "lists, tuples and dictionaries."
        )

    def _all(self, values: Any, path: str) -> list[Any]:
        return [self.plain(one, _join(path, i)) for i, one in enumerate(values)]

    def _dictionary(self, value: dict[Any, Any], path: str) -> Any:
        named = all(isinstance(key, str) for key in value) and MARK not in value
        if named and not isinstance(value, Counter):
            return {key: self.plain(one, _join(path, key)) for key, one in value.items()}
        kind = "counter" if isinstance(value, Counter) else "dictionary"
        pairs = [
            [self.plain(key, _join(path, "key")), self.plain(one, _join(path, key))]
            for key, one in value.items()
        ]
        return _marked(kind, pairs)

    def _name(self, tensor: Tensor, path: str) -> str:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"{path} is a tensor of another kind than dense, which cannot be saved: make it "
                "dense, or keep it out of the state."
            )
        same = (tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride())
        if tensor.numel() and same in self._known:
            return self._known[same]
        name = path or "tensor"
        while name in self.tensors:
            name += "'"
        found = tensor.detach().cpu().contiguous()
        # safetensors takes no two tensors of one storage, and of a view only its own numbers.
        storage = found.untyped_storage()
        own = found.numel() * found.element_size() == storage.nbytes()
        if storage.data_ptr() in self._storages or not own:
            found = found.clone()
        self._storages.add(storage.data_ptr())
        self.tensors[name] = found
        self._known[same] = name
        self._held.append(tensor)  # so that its address is not given to another
        return name


def _value(plain: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(plain, list):
        return [_value(one, tensors) for one in plain]
    if not isinstance(plain, dict):
        return plain
    if MARK not in plain:
        return {key: _value(one, tensors) for key, one in plain.items()}
    kind, content = plain[MARK], plain.get("value")
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "tensor" and isinstance(content, str):
        return tensors[content]
    if kind in ("tuple", "dictionary", "counter") and isinstance(content, list):
        values = [_value(one, tensors) for one in content]
        if kind == "tuple":
            return tuple(values)
        return Counter(dict(values)) if kind == "counter" else dict(values)
    raise ValueError(f"{kind!r} is no known kind")


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {MARK: kind, "value": value}


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
