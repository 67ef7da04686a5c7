"""Which kernel runs a call of a layer: the engine's, or PyTorch's where that is faster.

Sizes and the instruction set decide, never a clock: the same call on the same processor runs the
same kernel. PyTorch's GRU and RNN were behind at every size measured. Its LSTM (oneDNN) is ahead
where few lanes read weights of 4 MiB a layer and more at every step: each of the engine's threads
reads all of them for lanes of its own, oneDNN's share them. The bounds were measured on two threads
(``benchmarks/accelerate.py``): with AVX2 up to 1,024 units, with AVX-512 up to 512. Other
instruction sets take those of AVX2. Where the engine is behind for want of a free core
(docs/performance.md), nothing is decided here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LARGE, HUGE = 512, 1024
"""Hidden units."""
CHOOSES = True
"""False: the engine runs all that it can. For measurements."""


def pytorch_is_faster(layer: nn.RNNBase, input: Any) -> bool:
    """Whether PyTorch's kernel is faster in a call with this input, and can run it."""
    if layer.hidden_size < LARGE or layer.mode != "LSTM" or layer.proj_size or not CHOOSES:
        return False
    if type(input) is not Tensor or input.dtype is not torch.float32 or input.dim() not in (2, 3):
        return False
    lanes = 1 if input.dim() == 2 else input.shape[0 if layer.batch_first else 1]
    return _few(layer.hidden_size, lanes) and _onednn() and bool(torch.backends.mkldnn.enabled)


def _few(hidden: int, lanes: int) -> bool:
    """Whether so many lanes are too few to make up for the weights that they read."""
    from bptt import _core

    if lanes == 1:
        return True
    if _core.isa() == "avx512":
        return lanes <= 4
    return hidden >= HUGE and 8 <= lanes <= 32


def _onednn() -> bool:
    """Whether this PyTorch was built with it."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def note(layer: nn.RNNBase) -> str | None:
    """What a report says of a layer some of whose calls PyTorch's kernel runs."""
    if layer.hidden_size < LARGE or layer.mode != "LSTM" or layer.proj_size or not _onednn():
        return None
    if any(p.dtype is not torch.float32 for p in layer.parameters()):
        return None
    return "PyTorch's kernel runs some calls with few lanes, where it is faster"
