"""One update of the weights: check, clip, step, clear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.errors import NonFiniteError, OptionError
from bptt.gradients import Update
from bptt.network import Network
from bptt.optimize import Solver
from bptt.state import leaves
from bptt.training._history import Progress


@dataclass
class Stepper:
    """What happens at an `Update`, between finding the gradient and asking for the next one.

    Args:
        network: whose gradients the update added to.
        optimizer: of `torch.optim`.
        clip: the Euclidean norm, over all parameters together, that the gradient may have.

    Raises:
        OptionError: the optimizer holds nothing of the network, or an option does not go with it.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    clip: float | None = None

    def __post_init__(self) -> None:
        own = {id(p) for p in self.network.parameters() if p.requires_grad}
        if not any(id(p) in own for g in self.optimizer.param_groups for p in g["params"]):
            raise OptionError(
                "the optimizer holds no parameter of the network that is to be trained: make it "
                "of network.parameters(), after the network is on its device."
            )
        if self.clip is None:
            return
        if not self.clip > 0:
            raise OptionError(f"clip must be above 0, not {self.clip}.")
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise OptionError("clip does not go with L-BFGS, whose line search needs the gradient.")
        if isinstance(self.optimizer, Solver):
            raise OptionError(
                f"clip does not go with {type(self.optimizer.method).__name__}, which evaluates "
                "the loss by itself."
            )

    def apply(
        self, update: Update, progress: Progress, over: Callable[[], bool] | None = None
    ) -> float:
        """Apply an update's gradient; the gradient's norm before clipping.

        ``over`` is asked by optimizers that evaluate the update more than once.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; the update is withheld.
        """
        norm = self._norm()
        if not (math.isfinite(update.loss) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise NonFiniteError(_where_nonfinite(update, norm, progress))
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(update.closure)  # type: ignore[no-untyped-call]  # untyped in torch
        elif isinstance(self.optimizer, Solver):
            self.optimizer.step(update, over)
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        progress.update, progress.gradient_norm = update, norm
        progress.updates += 1
        return norm

    def _norm(self) -> float:
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        if self.clip is not None:
            return float(torch.nn.utils.clip_grad_norm_(parameters, self.clip))
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))


def _where_nonfinite(update: Update, norm: float, progress: Progress) -> str:
    what = f"loss {update.loss}" if update.loss - update.loss != 0 else f"gradient norm {norm}"
    bad = sorted(
        {
            lane
            for leaf in leaves(update.state)
            for lane in (~torch.isfinite(leaf.flatten(1))).any(dim=1).nonzero().flatten().tolist()
        }
    )
    lanes = f", non-finite state in lane(s) {', '.join(map(str, bad))}" if bad else ""
    return (
        f"{what} in epoch {progress.epoch}, update {progress.updates + 1}, steps {update.start} to "
        f"{update.stop - 1} of batch {update.batch}{lanes}. The update was withheld. A smaller "
        "learning rate, clip=1.0, or scaled data usually mend it."
    )
