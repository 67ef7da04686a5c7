"""The engine: a cell becomes a step program, and executors run it.

`compile` shows the program of a cell. `plan_for` finds the executor of a call: a plan, or the typed
reason why there is none. `eager.run` runs any cell in a Python loop, `native.run` a plan by the
compiled core.
"""

from bptt.engine.compiling import compile as compile
from bptt.engine.ir.program import StepProgram as StepProgram
from bptt.engine.runtime.compile_cache import Plan as Plan
from bptt.engine.runtime.compile_cache import plan_for as plan_for
from bptt.engine.unsupported import Reason as Reason
from bptt.engine.unsupported import Unsupported as Unsupported
