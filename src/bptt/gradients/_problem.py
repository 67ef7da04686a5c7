"""What an update minimises, for optimisers that ask for more than its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from bptt.engine.runtime.outputs import outputs_of
from bptt.errors import OptionError
from bptt.gradients._local import Local
from bptt.gradients._substitute import Substitute
from bptt.gradients.forward._method import laid_out
from bptt.gradients.forward._rtrl import RTRL
from bptt.losses import StepLoss, cost, step_loss
from bptt.network import Network
from bptt.segments import available, readable
from bptt.state import State, head
from bptt.streams import Chunk

ROWS = 256
"""Steps and lanes whose readout is differentiated at once."""


@dataclass(frozen=True)
class Problem:
    """The mean loss of a whole sequence, or of a batch of them, as a function of the weights.

    Attributes:
        network: whose present weights are evaluated.
        loss: of a step.
        chunk: all steps.
        start: the state before the first, or None for the initial state.
    """

    network: Network
    loss: StepLoss
    chunk: Chunk
    start: State | None

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, in the order of the Jacobian's columns."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @torch.no_grad()
    def value(self) -> float:
        """The mean loss, without a gradient."""
        outputs = self._outputs()
        chunk, read = self.chunk, self.network.read
        total = cost(self.loss, read, outputs, chunk.targets, chunk.mask)
        return float(total) / int(chunk.mask.sum())

    @torch.no_grad()
    def residuals(self) -> Tensor:
        """Prediction minus target of every counted step, lane and feature, in this order: the loss
        is the mean of their squares.

        Raises:
            OptionError: the loss is not ``"mse"``.
        """
        if self.loss is not step_loss("mse"):
            raise OptionError(
                "least squares minimises squared errors: it goes with loss='mse' alone. SciPy("
                "'L-BFGS-B') and every gradient method take any loss."
            )
        mask = self.chunk.mask
        predictions = self.network.read(self._outputs()[mask].unsqueeze(1))
        return (predictions - self.chunk.targets[mask].unsqueeze(1)).flatten()

    def _outputs(self) -> Tensor:
        outputs, _ = self.network.unfold(
            self.chunk.inputs,
            self.start,
            reset=self.chunk.any_reset,
            lengths=self.chunk.lengths,
        )
        return outputs

    def jacobian(self) -> Tensor:
        """∂residuals/∂parameters [residual, parameter], exact.

        It is accumulated forward in time, from the Jacobians of all steps at once: to send every
        residual's error back through time gives the same matrix for steps/states times the work.

        Raises:
            OptionError: memory does not suffice.
            CellError: the cell cannot be differentiated step by step.
        """
        network, chunk = self.network, self.chunk
        local = Local(network, "least squares")
        wanted = self.parameters
        self._check_memory(local, sum(p.numel() for p in wanted))
        initial = network.initial_state(chunk.inputs.shape[1], like=chunk.inputs)
        local.refuse_unfit(chunk.inputs[0], initial)
        states, steps, start, trace = laid_out(RTRL(None), local, chunk, self.start)
        flat = local.flat(states, 2)
        direct, by_state = _of_readout(network, local, flat[chunk.mask], wanted)
        columns = _columns(local, wanted)
        row = 0
        with torch.no_grad():
            for t, influence in RTRL(None).traces(local, steps, start, trace):
                lanes = chunk.mask[t]
                here = slice(row, row + int(lanes.sum()))
                direct[here, :, columns] += by_state[here] @ head(influence)[lanes]
                row = here.stop
        return direct.flatten(0, 1)

    def _check_memory(self, local: Local, count: int) -> None:
        lanes = self.chunk.inputs.shape[1]
        needed = 4 * lanes * local.size * local.count * local.bytes
        needed += 2 * int(self.chunk.mask.sum()) * self.chunk.targets[0, 0].numel() * count * 8
        free = available(local.like.device)
        if needed > free:
            raise OptionError(
                f"the Jacobian of all residuals would need {readable(needed)}, and "
                f"{readable(free)} are free: take fewer steps, lanes or units, or "
                "SciPy('L-BFGS-B'), which needs the gradient alone."
            )


class _Reading(nn.Module):
    """From a lane's flat state [size] to its prediction, flat."""

    def __init__(self, network: Network, local: Local) -> None:
        super().__init__()
        self.network = network
        self.nested = local.nested

    def forward(self, state: Tensor) -> Tensor:
        outputs = outputs_of(self.network.cell, self.nested(state[None, None]))
        return self.network.read(outputs).flatten()


def _of_readout(
    network: Network, local: Local, states: Tensor, wanted: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Of each state [row, size] the prediction's derivative by the parameters, as the readout uses
    them, [row, feature, parameter], and by the state [row, feature, size]."""
    reading = Substitute(_Reading(network, local))
    own = reading.present()
    at = {id(p): n for n, p in own.items()}

    def one(parameters: dict[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        by_parameter, by_state = jacrev(reading, argnums=(0, 1))(parameters, state)
        parts = [by_parameter[at[id(p)]].flatten(1) for p in wanted]
        return torch.cat(parts, 1), by_state

    found = [vmap(one, (None, 0))(own, part) for part in torch.split(states, ROWS)]
    return torch.cat([f[0] for f in found]).detach(), torch.cat([f[1] for f in found]).detach()


def _columns(local: Local, wanted: list[Tensor]) -> Tensor:
    """Where the parameters of `Local` stand among ``wanted``."""
    first, places = 0, {}
    for parameter in wanted:
        places[id(parameter)] = torch.arange(first, first + parameter.numel())
        first += parameter.numel()
    found = torch.cat([places[id(p)] for p in local.parameters] or [torch.arange(0)])
    return found.to(local.like.device)
