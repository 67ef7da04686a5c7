"""`Network`: a cell and its readout, the f and g of the founding texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bptt._counting import spend
from bptt.arguments import check_dtype
from bptt.cells._stack import output_of
from bptt.engine.backends.eager import check_step
from bptt.errors import CellError, ShapeError
from bptt.state import State, check_given, initial_state, leaves, map_state, rebuild, weight_of
from bptt.unfold import unfold, unfold_side_by_side


class Network(nn.Module):
    """A recurrent function and a readout: predictions from inputs, step by step.

    Args:
        cell: the recurrent function f, ``cell(input, state) -> state``.
        readout: the function g from a step's output to a prediction, applied to
            [time, lane, feature]; it treats each step and lane alone. Default: the output itself.
        learn_initial_state: make the state in which every lane starts, and to which resets
            return, a parameter; it begins at the cell's own initial state.
        clip_state_gradient: see `bptt.unfold`.
        backend: see `bptt.unfold`.

    Raises:
        CellError: ``cell`` or ``readout`` is no module.
    """

    def __init__(
        self,
        cell: nn.Module,
        readout: nn.Module | None = None,
        learn_initial_state: bool = False,
        *,
        clip_state_gradient: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, module in (("cell", cell), ("readout", readout)):
            if module is not None and not isinstance(module, nn.Module):
                raise CellError(f"{name} must be a torch.nn.Module, not {module!r}.")
        self.cell = cell
        self.readout = readout
        self.clip_state_gradient = clip_state_gradient
        self.backend = backend
        self.learned_initial_state: nn.ParameterList | None = None
        template = initial_state(cell, 1)
        self._template: State = map_state(lambda leaf: leaf.detach(), template)
        if learn_initial_state:
            self.learned_initial_state = nn.ParameterList(
                [nn.Parameter(leaf.detach()[0].clone()) for leaf in leaves(template)]
            )

    def reset_parameters(self) -> None:
        """Put a learned initial state back to the cell's own; cell and readout are left alone."""
        if self.learned_initial_state is None:
            return
        own = leaves(initial_state(self.cell, 1))
        with torch.no_grad():
            for parameter, leaf in zip(self.learned_initial_state, own, strict=True):
                parameter.copy_(leaf[0])

    def initial_state(self, lanes: int, like: Tensor | None = None) -> State:
        """The state in which ``lanes`` lanes start, leaves [lanes, ...]."""
        if self.learned_initial_state is None:
            return initial_state(self.cell, lanes, like=like)
        expanded = [leaf.expand(lanes, *leaf.shape) for leaf in self.learned_initial_state]
        return rebuild(self._template, expanded)

    def unfold(
        self,
        inputs: Tensor,
        state: State | None = None,
        *,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
        initial: State | None = None,
    ) -> tuple[Tensor, State]:
        """`bptt.unfold` of the cell, with this network's initial state and options."""
        _spend(inputs)
        return unfold(
            self.cell,
            inputs,
            state,
            initial=self._initial(inputs) if initial is None else initial,
            reset=reset,
            lengths=lengths,
            clip_state_gradient=self.clip_state_gradient,
            backend=self.backend,
        )

    def unfold_side_by_side(
        self, inputs: Sequence[Tensor], states: Sequence[State], resets: Sequence[Tensor | None]
    ) -> list[tuple[Tensor, State]] | None:
        """`bptt.unfold.unfold_side_by_side` of the cell."""
        found = unfold_side_by_side(
            self.cell,
            inputs,
            states,
            # One for each: the way back to what it is made of can be gone only once.
            initials=[self.initial_state(1, like=own) for own in inputs],
            resets=resets,
            clip_state_gradient=self.clip_state_gradient,
            backend=self.backend,
        )
        if found is not None:
            spend(sum(map(len, inputs)))
        return found

    def unfold_states(
        self,
        inputs: Tensor,
        state: State | None = None,
        *,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
        initial: State | None = None,
    ) -> tuple[Tensor, State, State]:
        """As `unfold`, and the states after every step."""
        _spend(inputs)
        return unfold(
            self.cell,
            inputs,
            state,
            initial=self._initial(inputs) if initial is None else initial,
            reset=reset,
            lengths=lengths,
            return_states=True,
            clip_state_gradient=self.clip_state_gradient,
            backend=self.backend,
        )

    def _initial(self, inputs: Tensor) -> State | None:
        """What `bptt.unfold` should start from; None, and a clear error there, for bad inputs."""
        if not isinstance(inputs, Tensor) or inputs.dim() < 2:
            return None
        return self.initial_state(inputs.shape[1], like=inputs)

    def read(self, outputs: Tensor) -> Tensor:
        """The readout's predictions from outputs [time, lane, feature]."""
        if self.readout is None:
            return outputs
        return self.readout(outputs)  # type: ignore[no-any-return]  # modules return Any

    def forward(
        self,
        inputs: Tensor,
        state: State | None = None,
        *,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Unfold and read out.

        Args:
            inputs: [time, lane, feature].
            state: the state before the first step; default: the initial state.
            reset: bool [time, lane], see `bptt.unfold`.
            lengths: int [lane], see `bptt.unfold`.

        Returns:
            Predictions [time, lane, ...] and the last state.
        """
        outputs, last = self.unfold(inputs, state, reset=reset, lengths=lengths)
        return self.read(outputs), last

    @torch.no_grad()
    def step(self, input: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step on live data, without a gradient: nothing grows however long it runs.

        Args:
            input: [lane, feature].
            state: the state that the last call gave; default: the initial state.

        Returns:
            The prediction [lane, ...] and the state to give to the next call.
        """
        if not isinstance(input, Tensor) or input.dim() == 0:
            raise ShapeError("step takes one step's input, a tensor [lane, feature].")
        size = getattr(self.cell, "input_size", None)
        if isinstance(size, int) and input.is_floating_point():
            if input.dim() != 2 or input.shape[1] != size:
                raise ShapeError(
                    f"step takes one step's input [lane, {size}], not {list(input.shape)}."
                )
        check_dtype(self.cell, input)
        own = self.initial_state(input.shape[0], like=input)
        if state is None:
            state = own
        else:
            check_given(self.cell, state, own, "state")
        spend(len(input))
        new: Any = self.cell(input, state)
        check_step(self.cell, new, state)
        return self.read(output_of(self.cell, new).unsqueeze(0)).squeeze(0), new


def _spend(inputs: Tensor) -> None:
    if isinstance(inputs, Tensor) and inputs.dim() >= 2:  # else it is refused
        spend(inputs.shape[0] * inputs.shape[1])


def check_trainable(network: Network) -> None:
    """Refuse what the gradient methods cannot train.

    Raises:
        CellError: no parameter needs a gradient, or the readout's result for one step depends on
            the others (batch statistics).
    """
    if not isinstance(network, Network):
        raise CellError(
            f"the network must be a bptt.Network(cell, readout), not a {type(network).__name__}."
        )
    if not any(p.requires_grad for p in network.parameters()):
        raise CellError("no parameter of the network requires a gradient: nothing can be trained.")
    if network.readout is None:
        return
    for name, module in network.readout.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            where = f" ({name})" if name else ""
            raise CellError(
                f"the readout has batch statistics, {type(module).__name__}{where}: its result "
                "for one step would depend on which others are counted with it. Use LayerNorm, or "
                "put it in eval() mode."
            )


def place_of(network: Network) -> torch.device | None:
    """The device that a network works on: that of its cell's weights, else of its readout's; None
    where it has none."""
    weight = weight_of(network.cell)
    if weight is None:
        weight = next(network.parameters(), None)
    return None if weight is None else weight.device


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Evaluation mode, and every module's own mode again afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
