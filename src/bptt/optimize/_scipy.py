"""Nonlinear programming and least squares by SciPy, on BPTT's gradient and Jacobian.

As in M. P. Cuéllar, M. Delgado and M. C. Pegalajar, An application of non-linear programming to
train recurrent neural networks in time series prediction problems (2006).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bptt.errors import BpttError, OptionError, at_least, one_of
from bptt.optimize._solver import Objective, Solver, Vector

GRADIENT = ("L-BFGS-B", "BFGS", "CG")
TRUST_REGION = ("trust-ncg", "trust-krylov", "trust-constr")
SQUARES = ("lm", "trf")


@dataclass(frozen=True)
class SciPy:
    """`scipy.optimize.minimize` on the gradient of each update.

    It goes with any gradient method that finds the gradient of one function: `Full`, or any
    window. Weights in float64 are advised: line searches compare losses that are nearly equal.

    Args:
        method: ``"L-BFGS-B"``, ``"BFGS"``, ``"CG"``; or a trust region, ``"trust-ncg"``,
            ``"trust-krylov"``, ``"trust-constr"``, whose products with the Hessian are differences
            of gradients.
        iterations: of the method, for each update; with `Full`, one epoch is as many.

    Raises:
        OptionError: an option is unknown or out of range.
    """

    savable: ClassVar[bool] = True
    method: str = "L-BFGS-B"
    iterations: int = 20

    def __post_init__(self) -> None:
        one_of(GRADIENT + TRUST_REGION, method=self.method)
        at_least(1, iterations=self.iterations)

    def __call__(self, parameters: Iterable[Tensor]) -> Solver:
        """The optimizer of ``parameters``."""
        _optimize()
        return Solver(parameters, self)

    def check(self, objective: Objective) -> None:
        """Nothing: the gradient is all it needs."""

    def run(self, objective: Objective, memory: dict[str, Any]) -> None:
        """So many iterations from the present weights."""
        extra: dict[str, Any] = {}
        if self.method in TRUST_REGION:
            extra["hessp"] = lambda x, v: _hessian_product(objective, x, v)
        _optimize().minimize(
            objective.gradient,
            objective.start,
            jac=True,
            method=self.method,
            options={"maxiter": self.iterations},
            **extra,
        )


@dataclass(frozen=True)
class LeastSquares:
    """`scipy.optimize.least_squares`: Gauss and Newton's approximation on the Jacobian of all
    residuals, which is exact.

    It goes with `Full` and ``loss="mse"``. Weights in float64 are advised.

    Args:
        method: ``"lm"``, Levenberg and Marquardt's by MINPACK, which needs as many residuals as
            weights; ``"trf"``, trust-region reflective.
        evaluations: of the residuals, for each update, at most. Each update begins with a wide
            trust region, so that a few evaluations may find nothing better.

    Raises:
        OptionError: an option is unknown or out of range; in training, the loss is another, or the
            residuals are too few.
    """

    savable: ClassVar[bool] = True
    method: str = "lm"
    evaluations: int = 100

    def __post_init__(self) -> None:
        one_of(SQUARES, method=self.method)
        at_least(1, evaluations=self.evaluations)

    def __call__(self, parameters: Iterable[Tensor]) -> Solver:
        """The optimizer of ``parameters``."""
        _optimize()
        return Solver(parameters, self)

    def check(self, objective: Objective) -> None:
        """Refuse other losses, and too few residuals."""
        count = len(objective.residuals(objective.start))
        if self.method == "lm" and count < len(objective.start):
            raise OptionError(
                f"Levenberg–Marquardt needs as many residuals as weights, and there are {count} "
                f"for {len(objective.start)}: LeastSquares('trf') does not, nor does "
                "SciPy('L-BFGS-B')."
            )

    def run(self, objective: Objective, memory: dict[str, Any]) -> None:
        """So many evaluations from the present weights."""
        _optimize().least_squares(
            objective.residuals,
            objective.start,
            jac=objective.jacobian,
            method=self.method,
            max_nfev=self.evaluations,
        )


def _hessian_product(objective: Objective, x: Vector, v: Vector) -> Vector:
    """H v by a central difference of gradients."""
    length = float(np.linalg.norm(v))
    if length == 0.0:
        return np.zeros_like(v)
    precision = float(torch.finfo(objective.dtype).eps)
    step = precision ** (1 / 3) * (1.0 + float(np.linalg.norm(x))) / length
    ahead, behind = objective.gradient(x + step * v)[1], objective.gradient(x - step * v)[1]
    product: Vector = (ahead - behind) / (2 * step)
    return product


def _optimize() -> Any:
    try:
        from scipy import optimize
    except ImportError as error:
        raise BpttError("this optimiser needs SciPy: pip install 'bptt[rivals]'.") from error
    return optimize
