"""Which kernel runs a call of a layer: the engine's, or PyTorch's where that is faster.

Sizes and the instruction set decide, never a clock: the same call on the same processor runs the
same kernel. PyTorch's GRU and RNN were behind at every size measured, and so was its LSTM except
where a step reads more weights than caches hold: each of the engine's threads reads all of them for
lanes of its own, PyTorch's (oneDNN's) share them. The bounds are those of
``benchmarks/accelerate.py``, measured with AVX2 and with AVX-512.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LARGE, LARGEST = 512, 1024
"""Hidden units from which weights leave caches: 4 MiB and 16 MiB a layer."""
CHOOSES = True
"""False: the engine runs all that it can. For measurements."""


def pytorch_is_faster(layer: nn.RNNBase, input: Any) -> bool:
    """Whether PyTorch's kernel is faster in a call with this input, and can run it."""
    if layer.hidden_size < LARGE or layer.mode != "LSTM" or layer.proj_size or not CHOOSES:
        return False
    if type(input) is not Tensor or input.dtype is not torch.float32 or input.dim() not in (2, 3):
        return False
    learns = torch.is_grad_enabled() and any(p.requires_grad for p in layer.parameters())
    lanes = 1 if input.dim() == 2 else input.shape[0 if layer.batch_first else 1]
    return _few(layer.hidden_size, lanes, learns) and bool(torch.backends.mkldnn.enabled)


def _few(hidden: int, lanes: int, learns: bool) -> bool:
    """Whether so many lanes are too few to make up for the weights that they read."""
    from bptt import _core

    if lanes == 1:
        return True
    if _core.isa() == "avx512":
        return lanes <= 4
    return hidden >= LARGEST and not learns and 8 <= lanes <= 32


def note(layer: nn.RNNBase) -> str | None:
    """What a report says of a layer some of whose calls PyTorch's kernel runs."""
    if layer.hidden_size < LARGE or layer.mode != "LSTM" or layer.proj_size:
        return None
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return "PyTorch's kernel runs calls with few lanes, where it is faster"
