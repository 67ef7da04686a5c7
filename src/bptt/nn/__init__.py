"""Layers: PyTorch's own by other means, and any cell with the same face.

`RNN`, `GRU` and `LSTM` are drop-in replacements for `torch.nn`'s, `Recurrent` makes a layer of any
cell, and `accelerate` replaces the layers of a model that is already there.
"""

from bptt.nn._accelerate import Entry as Entry
from bptt.nn._accelerate import Report as Report
from bptt.nn._accelerate import accelerate as accelerate
from bptt.nn._accelerate import decelerate as decelerate
from bptt.nn._drop_in import GRU as GRU
from bptt.nn._drop_in import LSTM as LSTM
from bptt.nn._drop_in import RNN as RNN
from bptt.nn._drop_in import GRUCell as GRUCell
from bptt.nn._drop_in import LSTMCell as LSTMCell
from bptt.nn._drop_in import RNNCell as RNNCell
from bptt.nn._recurrent import Recurrent as Recurrent
