"""What keeps a training run from the core's online loop, and the learner of what is not kept."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from bptt._identity import ByIdentity
from bptt.engine.frontend.module_state import Guard
from bptt.engine.online.learner import Learner, learner_for
from bptt.engine.unsupported import Refusal
from bptt.gradients import GradientMethod, SlidingWindow, Truncated
from bptt.losses import Loss
from bptt.network import Network
from bptt.state import leaves
from bptt.streams import Chunk
from bptt.training._slots import hooked
from bptt.training._slots import why_not as optimizer_why_not
from bptt.training._verified import differs

MOST_WORK = 2e7
"""Multiply-adds of a window beyond which PyTorch's own products, on all threads, are as fast."""


REPLACEABLE = ("step", "unfold", "unfold_states")
"""Methods that may have been replaced on one network, to count its steps: the core calls none."""


HOLDING = "the parameters hold gradients already"


def holds_gradients(network: Network) -> bool:
    """Whether PyTorch's next update would add to gradients that are there."""
    return any(p.grad is not None for p in network.parameters())


def windows_of(method: GradientMethod) -> Truncated | None:
    """The windows of a method that the core knows."""
    if type(method) is SlidingWindow:
        return method._windows
    return method if type(method) is Truncated else None


def why_not(
    network: Network,
    method: GradientMethod,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
) -> str | None:
    """Why training goes update by update through PyTorch; None if the core can do it."""
    windows = windows_of(method)
    if windows is None:
        return f"the method is {type(method).__name__}, not Truncated or SlidingWindow"
    if windows.history == "stored":
        return "history='stored' linearises instead of unfolding"
    if not isinstance(loss, str):
        return "the loss is a function of yours, not one of the named ones"
    if type(network) is not Network or any(name in network.__dict__ for name in REPLACEABLE):
        return f"the network is a {type(network).__name__}, not a plain Network"
    if network.backend not in ("auto", "native"):
        return f"backend={network.backend!r}"
    if any(network.__dict__.get(k) for k in network.__dict__ if k.endswith("_hooks")):
        return "the network has hooks"
    if torch.is_anomaly_enabled() or torch.is_autocast_enabled("cpu"):
        return "anomaly detection or autocast is on"
    for name, p in network.named_parameters():
        if hooked(p):
            return f"{name} has hooks"
        if p.device.type != "cpu":
            return f"{name} is on {p.device}"
    return optimizer_why_not(optimizer, [p for p in network.parameters() if p.requires_grad])


_LEARNERS: ByIdentity[dict[Any, tuple[Guard, Learner | str]]] = ByIdentity()


def learner_of(
    network: Network,
    windows: Truncated,
    loss: str,
    chunk: Chunk,
    length: int,
    *,
    own: bool = False,
) -> Learner | str:
    """The learner for these windows and such data, from the cache (``own``: a new one, which no
    other run uses); or the reason why there is none."""
    lanes = chunk.inputs.shape[1]
    steps = min(
        windows.depth, 1 << max(length - 1, 1).bit_length()
    )  # not one learner for every length
    kind = loss
    if loss == "cross_entropy":
        kind = "shares" if chunk.targets.is_floating_point() else "indices"
    if own:
        return _build(network, kind, chunk, steps)
    key = (kind, steps, lanes, chunk.inputs.shape[2:], chunk.inputs.dtype)
    known = _LEARNERS.setdefault(network, {})
    found = known.get(key)
    if found is not None and found[0].holds() and _is_current(found[1]):
        return found[1]
    if len(known) >= 8:
        known.clear()
    learner = _build(network, kind, chunk, steps)
    known[key] = (Guard(network), learner)
    return learner


def _is_current(learner: Learner | str) -> bool:
    return isinstance(learner, str) or learner.current is None or learner.current()


def _build(network: Network, kind: str, chunk: Chunk, steps: int) -> Learner | str:
    lanes = chunk.inputs.shape[1]
    if not chunk.inputs.is_floating_point() or chunk.inputs.dim() != 3:
        return "inputs are not [time, lane, feature] of numbers"
    with torch.no_grad():
        initial = network.initial_state(lanes, like=chunk.inputs)
    learned = [] if network.learned_initial_state is None else list(network.learned_initial_state)
    with torch.enable_grad():
        own = network.initial_state(lanes, like=chunk.inputs)
        if not learned and any(leaf.requires_grad for leaf in leaves(own)):
            return "the cell's own initial state needs a gradient"
    if any(leaf.dim() != 2 for leaf in leaves(initial)):
        return "a state that is not [lane, hidden]"
    try:
        with torch.enable_grad():
            learner = learner_for(
                network.cell,
                network.readout,
                initial,
                learned,
                chunk.inputs[:1],
                loss=kind,
                steps=steps,
                clip=network.clip_state_gradient,
            )
    except Refusal as refusal:
        return str(refusal.unsupported)
    work = steps * lanes * sum(t.numel() for t in learner.tensors)
    if work > MOST_WORK:
        return (
            f"its windows are large ({work:.1g} multiply-adds): PyTorch's own products are as fast"
        )
    if learner.current is not None:
        wrong = differs(network, learner, kind, chunk.inputs)
        if wrong is not None:
            warnings.warn(
                f"{type(network.cell).__name__} is trained through PyTorch, not in the core: "
                f"{wrong}.",
                stacklevel=2,
            )
            return str(wrong)
    return learner


def unfit(learner: Learner, chunk: Chunk, kind: str) -> str | None:
    """Why a chunk's targets are not what the loss compares; the eager loop tells the user so."""
    width = learner.prediction_width
    if kind == "cross_entropy" and not chunk.targets.is_floating_point():
        if chunk.targets.dim() != 2 or chunk.targets.dtype is not torch.int64:
            return "class indices that are not int64 [time, lane]"
        here = chunk.targets[chunk.mask]
        if here.numel() and not 0 <= int(here.min()) <= int(here.max()) < width:
            return "class indices out of range"
        return None
    if chunk.targets.dtype is not learner.dtype or tuple(chunk.targets.shape[2:]) != (width,):
        return "targets of another shape or dtype than the predictions"
    return None
