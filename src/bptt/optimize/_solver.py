"""Between `torch.optim` and solvers that take a function of one vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bptt.errors import OptionError
from bptt.gradients import Update
from bptt.gradients._problem import Problem

Vector = NDArray[np.float64]


class Over(Exception):
    """The budget is spent: the best weights so far are taken."""


class Objective:
    """What an update minimises, as functions of the weights in one float64 vector.

    Attributes:
        start: the present weights.
        best: the best weights evaluated so far, the present ones among them.
        lowest: their loss.
        dtype: in which losses are evaluated.
    """

    def __init__(
        self, parameters: list[Tensor], update: Update, over: Callable[[], bool] | None = None
    ) -> None:
        self._parameters, self._update, self._over = parameters, update, over
        self.start: Vector = self._join(parameters)
        self.best, self.lowest = self.start, update.loss
        self.dtype = parameters[0].dtype

    def put(self, vector: Vector) -> None:
        """Make ``vector`` the present weights."""
        parts = torch.split(torch.from_numpy(vector), [p.numel() for p in self._parameters])
        with torch.no_grad():
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.copy_(part.reshape(parameter.shape))

    def value(self, vector: Vector) -> float:
        """The loss."""
        self._move(vector)
        return self._note(vector, self.problem.value())

    def gradient(self, vector: Vector) -> tuple[float, Vector]:
        """The loss and its gradient."""
        self._move(vector)
        value = float(self._update.closure())
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return self._note(vector, value), self._join(gradient)

    def residuals(self, vector: Vector) -> Vector:
        """Prediction minus target of all that counts; the loss is the mean of the squares."""
        self._move(vector)
        found: Vector = self.problem.residuals().double().cpu().numpy()
        self._note(vector, float(np.mean(found**2)))
        return found

    def jacobian(self, vector: Vector) -> Vector:
        """∂residuals/∂weights."""
        self._move(vector)
        found: Vector = self.problem.jacobian().double().cpu().numpy()
        return found

    @property
    def problem(self) -> Problem:
        """The problem of the update.

        Raises:
            OptionError: the method's updates are no problem of their own.
        """
        if self._update.problem is None:
            raise OptionError(
                "this optimiser evaluates whole sequences without their gradient: it goes with "
                "method=Full(), not with windows or segments. SciPy('L-BFGS-B') takes any method."
            )
        return self._update.problem

    def _move(self, vector: Vector) -> None:
        if self._over is not None and self._over():
            raise Over
        self.put(vector)

    def _note(self, vector: Vector, value: float) -> float:
        if value < self.lowest:
            self.best, self.lowest = vector.copy(), value
        return value if math.isfinite(value) else math.inf

    @staticmethod
    def _join(tensors: list[Tensor]) -> Vector:
        joined: Vector = torch.cat([t.detach().flatten().double().cpu() for t in tensors]).numpy()
        return joined.copy()


class Method(Protocol):
    """How an objective is made smaller.

    Attributes:
        savable: whether nothing is remembered from update to update.
    """

    savable: ClassVar[bool]

    def check(self, objective: Objective) -> None:
        """Refuse what does not go with this method."""

    def run(self, objective: Objective, memory: dict[str, Any]) -> None:
        """Evaluate ``objective``; ``memory`` lives as long as the optimizer."""


class Solver(torch.optim.Optimizer):
    """An optimizer whose every step hands the update's problem to a general-purpose solver, and
    takes the best weights that it evaluated.

    Args:
        parameters: what is changed.
        method: the solver, with its options.
    """

    def __init__(self, parameters: Iterable[Tensor], method: Method) -> None:
        super().__init__([p for p in parameters if p.requires_grad], {"lr": 1.0})
        self.method = method
        self._memory: dict[str, Any] = {}

    def step(self, closure: Any = None, over: Callable[[], bool] | None = None) -> Any:
        """Make the loss of an update smaller.

        Args:
            closure: the `Update` itself, in place of a closure: ``solver.step(update)``.
            over: asked before every evaluation; true ends the step.

        Raises:
            OptionError: ``closure`` is no update, or does not go with the method.
        """
        if not isinstance(closure, Update):
            raise OptionError(
                "this optimizer's step takes the update: optimizer.step(update), for update in "
                "method.updates(network, loss, stream)."
            )
        parameters = [p for group in self.param_groups for p in group["params"]]
        objective = Objective(parameters, closure, over)
        self.method.check(objective)
        try:
            self.method.run(objective, self._memory)
        except Over:
            pass
        finally:
            objective.put(objective.best)
        return objective.lowest
