"""Truncated backpropagation through time by brute force, written from its definition.

Nothing of the library's unfolding or gradient methods is used: lanes run one by one, every copy of
the cell has weights of its own (so that the copies can be summed or averaged), and the gradient
that a learned initial state receives comes from plain autograd. With ``history="stored"`` the
Jacobians of every step are formed explicitly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.utils._pytree import tree_leaves, tree_map

import bptt

from .helpers import Weights, weights


@dataclass(frozen=True)
class Windows:
    """BPTT(h; h′): ``depth`` is h, ``stride`` h′."""

    depth: int
    stride: int
    loss: str = "new"
    context: str = "carried"
    combine: str = "sum"

    def spans(self, length: int) -> Iterator[tuple[int, int, int]]:
        """Start, end and first counted step of every window."""
        i, previous_end = 0, 0
        while i * self.stride < length:
            start = i * self.stride
            end = min(start + self.depth, length)
            yield (
                start,
                end,
                {"new": max(previous_end, start), "last": end - 1, "all": start}[self.loss],
            )
            if end == length:
                return
            i, previous_end = i + 1, end


@dataclass(frozen=True)
class Record:
    """The cost, how many it counts, and the weights after the update."""

    loss: float
    count: int
    weights: Weights


START = None
"""The context of a lane that is still at its initial state."""


class Lane:
    """One lane of a batch, run a step at a time."""

    def __init__(self, net: bptt.Network, batch: Any, index: int) -> None:
        self.net, self.index = net, index
        self.inputs = batch.inputs[:, index : index + 1]
        self.targets, self.mask = batch.targets[:, index], batch.mask[:, index]
        self.reset = batch.reset[:, index]
        self.length = batch.length if batch.lengths is None else int(batch.lengths[index])

    def initial(self) -> Any:
        """The state in which this lane starts, with its graph."""
        return self.net.initial_state(1)

    def step(self, t: int, state: Any, params: Weights | None = None) -> Any:
        """Step t from ``state``; past its end, a lane stays as it is."""
        if t >= self.length:
            return self.initial() if state is START else state
        entering = self.initial() if state is START or self.reset[t] else state
        if params is None:
            return self.net.cell(self.inputs[t], entering)
        return functional_call(self.net.cell, params, (self.inputs[t], entering))

    @torch.no_grad()
    def run(self, low: int, high: int, state: Any) -> Any:
        """The state after the steps low … high − 1."""
        for t in range(low, high):
            state = self.step(t, state)
        return state

    def predict(self, state: Any) -> Tensor:
        """The readout of one step, [feature]."""
        output = getattr(self.net.cell, "output", lambda s: tree_leaves(s)[0])(state)
        return self.net.readout(output)[0]


def detached(state: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach(), state)


def truncated(
    network: bptt.Network, batch: Any, how: Windows, rate: float, state: Any = START
) -> Iterator[Record]:
    """The weights after every update of plain SGD, from the numbered list of the definition."""
    net = copy.deepcopy(network)
    lanes = [Lane(net, batch, index) for index in range(batch.lanes)]
    contexts = [
        START if state is START else tree_map(lambda leaf, i=i: leaf[i : i + 1], state)
        for i in range(batch.lanes)
    ]
    for start, end, first in how.spans(batch.length):
        copies = [_own_weights(net) for _ in range(start, end)]
        costs: list[Tensor] = []
        following = list(contexts)
        for j, lane in enumerate(lanes):
            x = contexts[j]
            for t in range(start, end):
                x = lane.step(t, x, copies[t - start])
                if t >= first and bool(lane.mask[t]):
                    costs.append((lane.predict(x) - lane.targets[t]).square().mean())
                if t + 1 == start + how.stride:
                    following[j] = detached(x)
            if start + how.stride > end and how.context == "carried":
                following[j] = lane.run(end, start + how.stride, detached(x))
        if costs:
            cost = torch.stack(costs).mean()
            _descend(net, cost, copies, rate, how.combine)
            record = Record(float(cost.detach()), len(costs), weights(net))
        if how.context == "recomputed" and end < batch.length:
            following = [
                lane.run(start, min(start + how.stride, batch.length), contexts[j])
                for j, lane in enumerate(lanes)
            ]
        contexts = following
        if costs:
            yield record


def _own_weights(net: bptt.Network) -> Weights:
    return {n: p.detach().clone().requires_grad_() for n, p in net.cell.named_parameters()}


def _descend(
    net: bptt.Network, cost: Tensor, copies: list[Weights], rate: float, combine: str
) -> None:
    """Plain SGD: the copies' gradients summed or averaged, what is no copy as it is."""
    params = list(net.parameters())
    names = list(copies[0])
    flat = [one[name] for one in copies for name in names]
    found = torch.autograd.grad(cost, params + flat, allow_unused=True)
    total = {
        p: torch.zeros_like(p) if g is None else g
        for p, g in zip(params, found[: len(params)], strict=True)
    }
    share = 1.0 if combine == "sum" else 1.0 / len(copies)
    own = dict(net.cell.named_parameters())
    of_copies = found[len(params) :]
    for at, gradient in enumerate(of_copies):
        if gradient is not None:
            total[own[names[at % len(names)]]] = (
                total[own[names[at % len(names)]]] + share * gradient
            )
    with torch.no_grad():
        for p, g in total.items():
            p -= rate * g


def stored(network: bptt.Network, batch: Any, how: Windows, rate: float) -> Iterator[Record]:
    """As `truncated` for one lane, with the older steps linearised where they were first visited.

    Every step is visited once; all Jacobians of a window are formed with the weights of the day
    at the states that entered the steps when they were visited. For depth ≥ stride only.
    """
    net = copy.deepcopy(network)
    (lane,) = [Lane(net, batch, 0)]
    names = [name for name, _ in net.cell.named_parameters()]
    entered: list[Tensor] = []  # the state that entered step t
    newest = detached(_flat(lane.initial()))
    like = lane.initial()
    for start, end, first in how.spans(batch.length):
        while len(entered) < end:
            t = len(entered)
            entering = detached(_flat(lane.initial())) if lane.reset[t] else newest
            entered.append(entering)
            newest = detached(_flat(net.cell(lane.inputs[t], _nest(like, entering))))
        params = {n: p.detach() for n, p in net.cell.named_parameters()}
        counted = [t for t in range(first, end) if lane.mask[t]]
        costs, pulls, readout = _costs(lane, counted, entered, like)
        total = {name: torch.zeros_like(params[name]) for name in names}
        back = torch.zeros_like(newest)
        for t in reversed(range(start, end)):
            back = back + pulls.get(t, torch.zeros_like(back))

            def one_step(p: Weights, s: Tensor, t: int = t) -> Tensor:
                return _flat(functional_call(net.cell, p, (lane.inputs[t], _nest(like, s))))

            by_weights, by_state = jacrev(one_step, argnums=(0, 1))(params, entered[t])
            for name in names:
                total[name] += torch.tensordot(back, by_weights[name], dims=1)
            back = torch.zeros_like(back) if lane.reset[t] else back @ by_state
        share = 1.0 if how.combine == "sum" else 1.0 / (end - start)
        if counted:
            with torch.no_grad():
                for name, p in net.cell.named_parameters():
                    p -= rate * share * total[name]
                for p, g in zip(net.readout.parameters(), readout, strict=True):
                    p -= rate * g
            yield Record(float(costs), len(counted), weights(net))


def _costs(
    lane: Lane, counted: list[int], entered: list[Tensor], like: Any
) -> tuple[Tensor, dict[int, Tensor], tuple[Tensor, ...]]:
    """The mean cost, its gradient with respect to the state after every counted step, and to the
    readout's parameters."""
    if not counted:
        return torch.zeros(()), {}, ()
    states = {}
    for t in counted:
        new = _flat(lane.net.cell(lane.inputs[t], _nest(like, entered[t])))
        states[t] = new.detach().requires_grad_()
    cost = torch.stack(
        [
            (lane.predict(_nest(like, s)) - lane.targets[t]).square().mean()
            for t, s in states.items()
        ]
    ).mean()
    found = torch.autograd.grad(cost, [*states.values(), *lane.net.readout.parameters()])
    return (
        cost.detach(),
        dict(zip(states, found[: len(states)], strict=True)),
        found[len(states) :],
    )


def _flat(state: Any) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in tree_leaves(state)])


def _nest(like: Any, flat: Tensor) -> Any:
    sizes = [leaf.numel() for leaf in tree_leaves(like)]
    parts = iter(flat.split(sizes))
    return tree_map(lambda leaf: next(parts).reshape(leaf.shape), like)
