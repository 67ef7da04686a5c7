"""General-purpose optimisers that `bptt.fit` takes in place of those of `torch.optim`: nonlinear
programming, least squares and evolution, each from a well-kept library.

    bptt.fit(network, stream, optimizer=bptt.optimize.SciPy("L-BFGS-B"))
"""

from bptt.optimize._evolution import CMAES as CMAES
from bptt.optimize._scipy import LeastSquares as LeastSquares
from bptt.optimize._scipy import SciPy as SciPy
from bptt.optimize._solver import Objective as Objective
from bptt.optimize._solver import Solver as Solver
