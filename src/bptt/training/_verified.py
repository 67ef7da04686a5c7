"""Trust, but verify: a learner of a cell that is not built in makes one update beside PyTorch.

The update is one of plain gradient descent, of copies of the weights, over the first steps of the
data with targets of its own. Weights that are not what PyTorch makes of them mean that the learner
is not used. Nobody sees anything of it: no weight, generator or gradient of the network changes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bptt.engine._torch_compat import generators_kept
from bptt.engine.online.learner import Learner
from bptt.engine.runtime.verify import STEPS, TOLERANCE
from bptt.engine.unsupported import Reason, Unsupported
from bptt.losses import step_loss
from bptt.network import Network
from bptt.training._learner import tell
from bptt.training._slots import Slots
from bptt.unfold import unfold


def differs(network: Network, learner: Learner, loss: str, inputs: Tensor) -> Unsupported | None:
    """Why a learner cannot be trusted; None if it makes of three steps what PyTorch makes of them.

    Args:
        network: the network.
        learner: made for it, and bound to nothing yet.
        loss: "mse", "mae", "huber", "indices" or "shares", as the learner was made for.
        inputs: [time, lane, feature].
    """
    inputs = inputs[: min(STEPS, learner.steps)].detach().contiguous()
    if not len(inputs):
        return None
    targets = _targets(learner, loss, inputs)
    trained = [learner.tensors[number] for number in learner.gradients]
    with generators_kept():
        expected, slopes = _in_pytorch(network, trained, loss, inputs, targets)
        size = max((float(slope.abs().max()) for slope in slopes), default=0.0)
        if not (torch.isfinite(expected) and 0 < size < float("inf")):
            return None
        rate = min(1.0 / size, 1e3)
        found, moved = _in_the_core(network, learner, rate, inputs, targets)
    bound = TOLERANCE[learner.dtype]
    if not abs(found - float(expected)) <= bound * max(abs(float(expected)), 1e-3):
        return Unsupported(Reason.WRONG, "the loss of an update")
    for before, slope, after in zip(trained, slopes, moved, strict=True):
        room = bound * max(1.0, float(before.detach().abs().max()))
        if not bool(((before.detach() - rate * slope - after).abs() <= room).all()):
            return Unsupported(Reason.WRONG, f"an update of a weight {list(before.shape)}")
    return None


def _targets(learner: Learner, loss: str, inputs: Tensor) -> Tensor:
    """Targets that nothing is taken from: the data's own may be NaN where they are not counted."""
    width = learner.prediction_width
    if loss == "indices":
        return torch.arange(inputs.shape[0] * inputs.shape[1]).view(inputs.shape[:2]) % width
    numbers = torch.cos(torch.arange(1.0, 1.0 + len(inputs) * inputs.shape[1] * width))
    made = numbers.to(learner.dtype).view(*inputs.shape[:2], width)
    return made.softmax(2) if loss == "shares" else made


def _in_pytorch(
    network: Network, trained: list[Tensor], loss: str, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The mean loss and its gradients."""
    with torch.enable_grad():
        initial = network.initial_state(inputs.shape[1], like=inputs)
        outputs, _ = unfold(
            network.cell,
            inputs,
            initial,
            clip_state_gradient=network.clip_state_gradient,
            backend="eager",
        )
        named = "cross_entropy" if loss in ("indices", "shares") else loss
        cost = step_loss(named)(network.read(outputs), targets).mean()
        found = torch.autograd.grad(cost, trained, allow_unused=True)
    pairs = zip(trained, found, strict=True)
    return cost.detach(), [torch.zeros_like(t) if g is None else g for t, g in pairs]


def _in_the_core(
    network: Network, learner: Learner, rate: float, inputs: Tensor, targets: Tensor
) -> tuple[float, list[Tensor]]:
    """The loss and the weights after an update of copies."""
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in learner.tensors]
    trial = replace(learner, tensors=tuple(copies))
    moved = [copies[number] for number in learner.gradients]
    steps, core = len(inputs), learner.core
    core.bind([copy.detach() for copy in copies])
    tell(trial, network)
    slots = Slots(torch.optim.SGD(moved, lr=rate), trial)
    core.configure(steps, steps, "all", False, False, -1.0, slots.told)
    core.enter(None, steps, 0, 0, None)
    mask = torch.ones(inputs.shape[:2], dtype=torch.bool)
    losses, norms = torch.zeros(2, 1, dtype=torch.float64)
    counts = torch.zeros(1, dtype=torch.int64)
    core.run(inputs, targets, mask, None, None, 0, steps, 1.0, losses, norms, counts, 1)
    return float(losses[0]), [weight.detach() for weight in moved]
