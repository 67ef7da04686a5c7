"""Derivatives of single steps, many steps and lanes at once: what forward methods are made of.

A step s' = f(a, s; θ) has the Jacobians ∂s'/∂s [state, state] and ∂s'/∂θ [state, parameter], here
with the state of a lane and the trained parameters each laid out as one vector. Steps whose
entering states are known need no order, so they are differentiated side by side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vjp, vmap

from bptt.errors import CellError
from bptt.gradients._substitute import Parameters, Substitute
from bptt.gradients._window import add_gradient, beneath
from bptt.network import Network
from bptt.segments import draws, undrawn
from bptt.state import State, leaves, map_state, rebuild


class Local:
    """The steps of one network's cell, differentiable one by one.

    Args:
        network: the cell, its initial state, and which parameters are trained.
        method: the name of who asks, for messages.

    Attributes:
        size: numbers in the state of one lane.
        count: numbers in the trained parameters of cell and initial state, in this order.
        bytes: of one number.
        like: a tensor of the state's dtype and device.
        shapes: the trained parameters by name, in the same order, with their shapes.

    Raises:
        CellError: the network cannot be differentiated step by step.
    """

    def __init__(self, network: Network, method: str) -> None:
        self.network, self.method = network, method
        self._like = network.initial_state(1)
        self._cell = Substitute(network.cell)
        parts = leaves(self._like)
        if len({leaf.dtype for leaf in parts}) > 1 or not parts[0].is_floating_point():
            found = ", ".join(str(leaf.dtype) for leaf in parts)
            raise CellError(
                f"{method} needs a state of one floating dtype, and {type(network.cell).__name__} "
                f"carries {found}. {OTHERS}"
            )
        if network.clip_state_gradient is not None:
            raise CellError(
                f"clip_state_gradient clips an error on its way back, and {method} sends none "
                f"back: make the network without it. {OTHERS}"
            )
        self._shapes = [leaf.shape[1:] for leaf in parts]
        self._sizes = [leaf[0].numel() for leaf in parts]
        self.size: int = sum(self._sizes)
        learned = network.learned_initial_state
        self._learned = [] if learned is None else [p for p in learned if p.requires_grad]
        self._own: int = sum(p.numel() for p in self._cell.present().values())
        self.count: int = self._own + sum(p.numel() for p in self._learned)
        self.bytes, self.like = parts[0].element_size(), parts[0].detach()
        self.shapes = [(name, p.shape) for name, p in self._cell.present().items()]
        self.shapes += [("learned_initial_state", p.shape) for p in self._learned]
        self._together = self._forward = True

    def flat(self, state: State, lead: int = 1) -> Tensor:
        """A state with ``lead`` leading dimensions as one tensor [..., size]."""
        return torch.cat([leaf.reshape(*leaf.shape[:lead], -1) for leaf in leaves(state)], -1)

    def nested(self, flat: Tensor) -> State:
        """The inverse of `flat`: [..., size] as a state."""
        parts = torch.split(flat, self._sizes, -1)
        shaped = [p.reshape(*flat.shape[:-1], *s) for p, s in zip(parts, self._shapes, strict=True)]
        return rebuild(self._like, shaped)

    def refuse_unfit(self, inputs: Tensor, initial: State) -> None:
        """Look at one step, inputs [lane, ...] from ``initial``, for what cannot be done here.

        Raises:
            CellError: the cell draws random numbers, changes its buffers, mixes lanes, captures
                tensors that need a gradient.
        """
        cell, name = self.network.cell, type(self.network.cell).__name__
        state = map_state(lambda leaf: leaf.detach(), initial)
        before = draws()
        versions = {n: (b, b._version) for n, b in cell.named_buffers()}
        with undrawn(), torch.enable_grad():
            new = cell(inputs, state)
            drawn = draws(before) is not before
        if drawn:
            raise CellError(
                f"{name} draws random numbers, so that a step has no derivative to carry forward: "
                f"{self.method} needs a deterministic cell (eval() turns dropout off). {OTHERS}"
            )
        for buffer, (held, version) in versions.items():
            if held._version != version:
                raise CellError(f"{name} changes its buffer {buffer!r} as it runs. {OTHERS}")
        known = {id(p) for p in cell.parameters()}
        if any(id(t) not in known for leaf in leaves(new) for t in beneath(leaf)):
            raise CellError(
                f"{name} uses a tensor that needs a gradient and is none of its parameters: make "
                f"it an nn.Parameter of the cell. {OTHERS}"
            )
        expected, rows = self.flat(new).detach(), self.flat(state)
        try:
            found = self._each(self._step, inputs, rows)
        except RuntimeError:  # control flow on data, an operator that vmap does not know
            self._together = False
            found = self._each(self._step, inputs, rows)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise CellError(f"{name} mixes lanes: each must depend on itself alone. {OTHERS}")

    def _each(self, function: Callable[..., Any], *rows: Tensor) -> Any:
        """``function(parameters, *row)`` of every row, side by side where the cell allows it."""
        own = self._cell.present()
        if self._together:
            with warnings.catch_warnings():
                # vmap loops over PyTorch's own fused cells, which is slow and right.
                warnings.filterwarnings("ignore", "There is a performance drop")
                return vmap(function, (None, *(0 for _ in rows)))(own, *rows)
        found = [function(own, *row) for row in zip(*rows, strict=True)]
        if isinstance(found[0], Tensor):
            return torch.stack(found)
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))

    def _step(self, parameters: Parameters, input: Tensor, state: Tensor) -> Tensor:
        """One lane, one step: [size] to [size]."""
        nested = map_state(lambda leaf: leaf.unsqueeze(0), self.nested(state))
        new = self._cell(parameters, input.unsqueeze(0), nested)
        return self.flat(new)[0]

    def jacobians(self, inputs: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """∂s'/∂s [rows, size, size] and ∂s'/∂θ [rows, size, count] of each row's step, from inputs
        [rows, ...] and entering states [rows, size]."""

        def one(own: Parameters, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            if not own:
                return jacrev(self._step, 2)(own, input, state), self._joined({}, state, 1)
            by_parameter, by_state = jacrev(self._step, (0, 2))(own, input, state)
            return by_state, self._joined(by_parameter, state, 1)

        by_state, by_parameter = self._each(one, inputs, states)
        return by_state, by_parameter

    def pull(self, inputs: Tensor, states: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's error [rows, size] back through its step: times ∂s'/∂s [rows, size], and
        times ∂s'/∂θ [rows, count]."""

        def one(own: Parameters, input: Tensor, state: Tensor, error: Tensor) -> Any:
            back = vjp(lambda p, s: self._step(p, input, s), own, state)[1]
            by_parameter, by_state = back(error)
            return by_state, self._joined(by_parameter, state, 0)

        by_state, by_parameter = self._each(one, inputs, states, errors)
        return by_state, by_parameter

    def push(self, inputs: Tensor, states: Tensor, tangents: Tensor) -> Tensor:
        """Each row's tangent [rows, size] forward through its step: ∂s'/∂s times it."""
        cell = self.network.cell

        def step(flat: Tensor) -> Tensor:
            return self.flat(cell(inputs, self.nested(flat)))

        if self._forward:
            try:
                with torch.no_grad():
                    pushed: Tensor = jvp(step, (states,), (tangents,))[1]
                return pushed
            except NotImplementedError:  # PyTorch's fused cells on a GPU have reverse mode alone
                self._forward = False
        return _reversed_twice(step, states, tangents)

    def _joined(self, found: Parameters, state: Tensor, lead: int) -> Tensor:
        """Derivatives by parameter, of ``lead`` leading dimensions, side by side; the initial
        state's own parameters change no step."""
        parts = [found[name].reshape(*found[name].shape[:lead], -1) for name in self._cell.names]
        parts.append(state.new_zeros(*state.shape[:lead], self.count - self._own))
        return torch.cat(parts, -1)

    def of_initial(self, initial: State) -> Tensor | None:
        """∂initial/∂θ [lane, size, count], None where nothing trained is in it."""
        if not any(leaf.requires_grad for leaf in leaves(initial)):
            return None
        flat = self.flat(initial)
        if self._learned:  # the same in every lane
            return self._of_lane(flat[0]).expand(len(flat), -1, -1)
        return torch.stack([self._of_lane(lane) for lane in flat])

    def _of_lane(self, state: Tensor) -> Tensor:
        """∂state/∂θ [size, count] of one lane's state [size]."""
        wanted = self.parameters
        found = torch.autograd.grad(
            state,
            wanted,
            torch.eye(self.size, dtype=state.dtype, device=state.device),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        parts = [
            state.new_zeros(self.size, p.numel()) if g is None else g.flatten(1)
            for g, p in zip(found, wanted, strict=True)
        ]
        return torch.cat(parts, 1)

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters that the state depends on, in order."""
        return [*self._cell.present().values(), *self._learned]

    def add(self, gradient: Tensor) -> None:
        """Add a gradient [count] to the parameters' ``.grad``."""
        wanted = self.parameters
        parts = torch.split(gradient, [p.numel() for p in wanted])
        for parameter, part in zip(wanted, parts, strict=True):
            add_gradient(parameter, part.reshape(parameter.shape).to(parameter.dtype))


def _reversed_twice(function: Callable[[Tensor], Tensor], at: Tensor, tangents: Tensor) -> Tensor:
    """∂function/∂at times tangents by reverse mode: an error goes back linearly, and the derivative
    of that with respect to the error is the Jacobian again."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        result = function(at)
        error = torch.zeros_like(result, requires_grad=True)
        if not result.requires_grad:  # it depends on nothing
            return torch.zeros_like(result)
        options = {"allow_unused": True, "materialize_grads": True}
        (back,) = torch.autograd.grad(result, at, error, create_graph=True, **options)
        if not back.requires_grad:
            return torch.zeros_like(result)
        (pushed,) = torch.autograd.grad(back, error, tangents, **options)
    return pushed


OTHERS = "Full() and Truncated() take any cell."
