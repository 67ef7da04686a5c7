"""Evolution by CMA-ES, from the package ``cma`` of its author."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from bptt.errors import BpttError, OptionError, at_least
from bptt.optimize._solver import Objective, Solver

DIAGONAL = 500
"""Weights above which the covariance is held diagonal: adapting all of it would cost more than the
losses do."""

WORST = 1e100
"""Stands for a loss that is not finite."""


@dataclass(frozen=True)
class CMAES:
    """Covariance matrix adaptation: a general-purpose optimiser that sees losses alone.

    It goes with `Full`, one batch an epoch. The weights are the best that were evaluated.

    Args:
        sigma: the standard deviation of the first generation, about a third of how far the
            solution is expected.
        population: members of a generation; default: 4 + 3·ln(weights).
        generations: for each update.
        seed: of the draws.

    Raises:
        OptionError: an option is out of range.

    Source: N. Hansen and A. Ostermeier, Completely derandomized self-adaptation in evolution
    strategies, Evolutionary Computation 9 (2001).
    """

    savable: ClassVar[bool] = False
    sigma: float = 0.3
    population: int | None = None
    generations: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise OptionError(f"sigma must be a finite number above 0, not {self.sigma}.")
        if self.population is not None:
            at_least(2, population=self.population)
        at_least(1, generations=self.generations)
        at_least(0, seed=self.seed)

    def __call__(self, parameters: Iterable[Tensor]) -> Solver:
        """The optimizer of ``parameters``."""
        _cma()
        return Solver(parameters, self)

    def check(self, objective: Objective) -> None:
        """Refuse methods whose updates are windows."""
        _ = objective.problem

    def run(self, objective: Objective, memory: dict[str, Any]) -> None:
        """So many generations; the distribution is kept from update to update."""
        if "strategy" not in memory:
            memory["strategy"] = _cma().CMAEvolutionStrategy(
                objective.start, self.sigma, self._options(len(objective.start))
            )
        strategy = memory["strategy"]
        for _ in range(self.generations):
            members = strategy.ask()
            losses = [objective.value(member) for member in members]
            strategy.tell(members, [min(loss, WORST) for loss in losses])

    def _options(self, weights: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "seed": self.seed + 1,  # 0 would take the clock
            "verbose": -9,
            "verb_log": 0,
            "CMA_diagonal": weights > DIAGONAL,
        }
        if self.population is not None:
            options["popsize"] = self.population
        return options


def _cma() -> Any:
    try:
        import cma
    except ImportError as error:
        raise BpttError("CMA-ES needs the package cma: pip install 'bptt[rivals]'.") from error
    return cma
