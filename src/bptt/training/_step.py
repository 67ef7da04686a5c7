"""One update of the weights: check, clip, step, check again, clear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import torch
from torch import Tensor

from bptt.errors import NonFiniteError, OptionError
from bptt.gradients import Update
from bptt.network import Network
from bptt.optimize import Solver
from bptt.training._history import Progress
from bptt.training._nonfinite import report


@dataclass
class Stepper:
    """What happens at an `Update`, between finding the gradient and asking for the next one.

    Args:
        network: whose gradients the update added to.
        optimizer: of `torch.optim`.
        clip: the Euclidean norm, over all parameters together, that the gradient may have.
        clip_value: the absolute value that each of its numbers may have.

    Raises:
        OptionError: the optimizer holds nothing of the network, or an option does not go with it.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    clip: float | None = None
    clip_value: float | None = None
    _before: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        own = {id(p) for p in self.network.parameters() if p.requires_grad}
        if not any(id(p) in own for g in self.optimizer.param_groups for p in g["params"]):
            raise OptionError(
                "the optimizer holds no parameter of the network that is to be trained: make it "
                "of network.parameters(), after the network is on its device."
            )
        if self.clip is not None and self.clip_value is not None:
            raise OptionError("give clip=, a norm, or clip_value=, not both.")
        for name, value in (("clip", self.clip), ("clip_value", self.clip_value)):
            if value is None:
                continue
            if not value > 0:
                raise OptionError(f"{name} must be above 0, not {value}.")
            if isinstance(self.optimizer, torch.optim.LBFGS):
                raise OptionError(
                    f"{name} does not go with L-BFGS, whose line search needs the gradient."
                )
            if isinstance(self.optimizer, Solver):
                raise OptionError(
                    f"{name} does not go with {type(self.optimizer.method).__name__}, which "
                    "evaluates the loss by itself."
                )

    def apply(
        self, update: Update, progress: Progress, over: Callable[[], bool] | None = None
    ) -> float:
        """Apply an update's gradient; the gradient's norm before clipping.

        ``over`` is asked by optimizers that evaluate the update more than once.

        Raises:
            NonFiniteError: loss, gradient or the new weights are NaN or infinite; the update is
                withheld: the weights are what they were.
        """
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        norm = float(total)
        if not math.isfinite(update.loss):
            self._withhold("loss", update, norm, progress)
        if not math.isfinite(norm):
            self._withhold("gradient", update, norm, progress)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, total)
        elif self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        self._remember()
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(update.closure)  # type: ignore[no-untyped-call]  # untyped in torch
        elif isinstance(self.optimizer, Solver):
            self.optimizer.step(update, over)
        else:
            self.optimizer.step()
        if not self._finite():
            self._withhold("weights", update, norm, progress)
        self.clear()
        progress.update, progress.gradient_norm = update, norm
        progress.updates += 1
        return norm

    def clear(self) -> None:
        """No gradient is left, of the network or of what else the optimizer holds."""
        self.optimizer.zero_grad()
        self.network.zero_grad()

    def _withhold(
        self,
        what: Literal["loss", "gradient", "weights"],
        update: Update,
        norm: float,
        progress: Progress,
    ) -> NoReturn:
        """Leave weights and gradients as if there had been no update, and tell of it."""
        named = dict(self.network.named_parameters())
        values = {n: p if what == "weights" else p.grad for n, p in named.items()}
        bad = (n for n, v in values.items() if v is not None and not _all_finite(v))
        names = tuple(bad)
        if what == "weights":
            with torch.no_grad():
                for parameter, before in zip(self._trained(), self._before, strict=True):
                    parameter.copy_(before)
        self.clear()
        found = report(what, update, norm, names, progress)
        error = NonFiniteError(str(found))
        error.report = found
        raise error

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def _remember(self) -> None:
        """Keep the weights as they are before the optimizer's step."""
        trained = self._trained()
        if [t.shape for t in self._before] != [p.shape for p in trained]:
            self._before = [torch.empty_like(p) for p in trained]
        for before, parameter in zip(self._before, trained, strict=True):
            before.copy_(parameter)

    @torch.no_grad()
    def _finite(self) -> bool:
        """Whether the weights are; their norm alone may overflow where they are not infinite."""
        trained = self._trained()
        norm = float(torch.nn.utils.get_total_norm(trained))
        return math.isfinite(norm) or all(map(_all_finite, trained))


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
