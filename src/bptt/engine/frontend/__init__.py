"""From a user's cell to a graph of single operators.

`find` gives the form of a call's step, and the tensors of the call. Built-in cells are traced on
private twins (`builtin`); the steps of all others are captured by TorchDynamo (`capture`,
`foreign`). No code of the user's runs after that, and nothing of the user's is changed.
"""

from bptt.engine.frontend.form import Form as Form
from bptt.engine.frontend.form import Found as Found
from bptt.engine.frontend.front import BuiltIn as BuiltIn
from bptt.engine.frontend.front import built_in_of as built_in_of
from bptt.engine.frontend.front import find as find
from bptt.engine.frontend.front import forget as forget
from bptt.engine.frontend.front import refuse as refuse
from bptt.engine.frontend.front import refused as refused
