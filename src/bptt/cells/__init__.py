"""Cells: recurrent functions ``cell(input, state) -> state`` in plain PyTorch.

Any `torch.nn.Module` with that signature is a cell; these are the common ones. Parameter names and
gate orders are PyTorch's, so a ``state_dict`` moves between these and `torch.nn`'s cells.
"""

from bptt.cells._basic import Elman as Elman
from bptt.cells._basic import Leaky as Leaky
from bptt.cells._embedded import Embedded as Embedded
from bptt.cells._gated import GRU as GRU
from bptt.cells._gated import LSTM as LSTM
from bptt.cells._self_recurrent import SelfRecurrent as SelfRecurrent
from bptt.cells._stack import Stack as Stack
from bptt.cells._state_space import StateSpace as StateSpace
