"""The training loop, stopping criteria, history, evaluation."""

from bptt.training._checkpoint import Checkpoint as Checkpoint
from bptt.training._checkpoint import checkpoints_in as checkpoints_in
from bptt.training._evaluate import Evaluation as Evaluation
from bptt.training._evaluate import evaluate as evaluate
from bptt.training._evaluate import predict as predict
from bptt.training._fit import fit as fit
from bptt.training._history import Epoch as Epoch
from bptt.training._history import History as History
from bptt.training._history import Progress as Progress
from bptt.training._history import Start as Start
from bptt.training._hold import Hold as Hold
from bptt.training._hold import Place as Place
from bptt.training._nonfinite import POLICIES as POLICIES
from bptt.training._nonfinite import NonFiniteReport as NonFiniteReport
from bptt.training._nonfinite import NonFiniteWarning as NonFiniteWarning
from bptt.training._online import Online as Online
from bptt.training._processes import join_processes as join_processes
from bptt.training._signals import Interrupted as Interrupted
from bptt.training._stopping import Epochs as Epochs
from bptt.training._stopping import GradientNorm as GradientNorm
from bptt.training._stopping import Patience as Patience
from bptt.training._stopping import StoppingCriterion as StoppingCriterion
from bptt.training._stopping import TargetLoss as TargetLoss
from bptt.training._stopping import TimeLimit as TimeLimit
from bptt.training._store import remove_checkpoints as remove_checkpoints
from bptt.training._store import strange_checkpoints as strange_checkpoints
