"""The reach of a gradient method itself: what its own backward passes bring to every state."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from bptt.diagnostics._nudged import Nudged
from bptt.diagnostics._reach import spread
from bptt.diagnostics._trajectory import Portion
from bptt.errors import CellError, DataError, OptionError
from bptt.gradients import GradientMethod
from bptt.losses import Loss
from bptt.network import Network
from bptt.state import map_state
from bptt.streams import Batch, Stream
from bptt.streams._chunk import TensorBatch

ANCHORS = 16
"""Every anchor is a lane of the whole sequence: no more of them than this."""


def named(method: GradientMethod) -> str:
    """The method with the options that say how far it reaches: ``Truncated(depth=20)``."""
    known = [
        f"{name}={getattr(method, name)}"
        for name in ("depth", "stride", "segment")
        if isinstance(getattr(method, name, None), int)
    ]
    return f"{type(method).__name__}({', '.join(known)})"


class _Probe(Stream):
    """One batch, as it is: a stream's own would be cut from the nudges that it was made of."""

    def __init__(self, batch: TensorBatch) -> None:
        super().__init__(batch.inputs.detach(), batch.targets, mask=batch.mask)
        self.batch = batch

    def batches(self) -> Generator[Batch]:
        """The batch."""
        yield self.batch


def method_reach(
    network: Network, portion: Portion, method: GradientMethod, loss: Loss, anchors: int
) -> Tensor:
    """‖∂loss_t/∂state_{t−lag}‖ as ``method`` finds it, float64 [lag, anchor].

    Every anchor is a lane with the first lane's data, in which its step alone counts; the cell is
    nudged in every step, and the method makes one pass. NaN where the data begin.

    Raises:
        DataError: the data hold resets, or nothing counts.
        OptionError: the method leaves no gradient in its inputs.
    """
    chunk = portion.chunk
    if bool(chunk.reset[:, 0].any()):
        raise DataError("a method's reach is measured along one sequence: the data hold several.")
    steps = len(chunk.inputs) if chunk.lengths is None else int(chunk.lengths[0])
    chosen = spread(chunk.mask[:steps, 0].nonzero()[:, 0], anchors)
    if not len(chosen):
        raise DataError("none of the first lane's steps counts.")
    lanes = len(chosen)
    state = network.initial_state(1, like=chunk.inputs)
    nudged = Nudged(network.cell, chunk.inputs[0, :1], state)
    nudges = chunk.inputs.new_zeros(steps, lanes, nudged.width, dtype=nudged.state_dtype)
    nudges.requires_grad_()
    inputs = chunk.inputs[:steps, :1].expand(steps, lanes, *chunk.inputs.shape[2:])
    targets = chunk.targets[:steps, :1].expand(steps, lanes, *chunk.targets.shape[2:])
    place = torch.arange(steps, device=chosen.device)[:, None]
    mask = place == chosen
    probe = Network(nudged, network.readout, backend=network.backend)
    start = (
        None
        if portion.state is None
        else map_state(
            lambda leaf: leaf[:1].expand(lanes, *leaf.shape[1:]).contiguous(), portion.state
        )
    )
    held = [p.grad for p in probe.parameters()]
    total = torch.zeros_like(nudges)
    none = torch.zeros_like(mask)
    batch = TensorBatch(nudged.widen(inputs, nudges), targets, mask, none, None)
    try:
        for update in method.updates(probe, loss, _Probe(batch), start):
            if nudges.grad is None:
                raise OptionError(_unseen(method))
            # The method took the mean over what its window counts.
            total += nudges.grad * update.count
            nudges.grad = None
    except CellError as error:  # forward methods refuse what is no parameter
        raise OptionError(_unseen(method)) from error
    for parameter, gradient in zip(probe.parameters(), held, strict=True):
        parameter.grad = gradient
    norms = torch.linalg.vector_norm(total, dim=2, dtype=torch.float64)
    before = chosen - place  # the step that lies so many lags before
    found = torch.where(before >= 0, norms.gather(0, before.clamp(min=0)), float("nan"))
    return found[: int(chosen.max()) + 1].cpu()


def _unseen(method: GradientMethod) -> str:
    return (
        f"{type(method).__name__} leaves no gradient in its inputs, so its reach cannot be seen: "
        "it is seen of methods that sum what comes back through time, as Full and Truncated do."
    )
