"""Backpropagation through time: train recurrent networks on ordered data, on PyTorch."""

from bptt import _ending as _ending  # first of all: what follows takes seconds
from bptt import cells as cells
from bptt import nn as nn
from bptt import optimize as optimize
from bptt import tasks as tasks
from bptt.cells import Stack as Stack
from bptt.comparison import Comparison as Comparison
from bptt.comparison import compare as compare
from bptt.diagnostics import Diagnosis as Diagnosis
from bptt.diagnostics import diagnose as diagnose
from bptt.errors import BpttError as BpttError
from bptt.errors import CellError as CellError
from bptt.errors import CheckpointError as CheckpointError
from bptt.errors import DataError as DataError
from bptt.errors import NonFiniteError as NonFiniteError
from bptt.errors import OptionError as OptionError
from bptt.errors import ProcessError as ProcessError
from bptt.errors import ShapeError as ShapeError
from bptt.gradients import RTRL as RTRL
from bptt.gradients import UORO as UORO
from bptt.gradients import EvolutionStrategies as EvolutionStrategies
from bptt.gradients import Focused as Focused
from bptt.gradients import Full as Full
from bptt.gradients import GradientMethod as GradientMethod
from bptt.gradients import SlidingWindow as SlidingWindow
from bptt.gradients import Truncated as Truncated
from bptt.gradients import Update as Update
from bptt.network import Network as Network
from bptt.nn import accelerate as accelerate
from bptt.nn import decelerate as decelerate
from bptt.segments import SegmentPlan as SegmentPlan
from bptt.segments import checkpointed_unfold as checkpointed_unfold
from bptt.streams import Chunk as Chunk
from bptt.streams import Stream as Stream
from bptt.streams import Vocabulary as Vocabulary
from bptt.training import Checkpoint as Checkpoint
from bptt.training import Epochs as Epochs
from bptt.training import Evaluation as Evaluation
from bptt.training import GradientNorm as GradientNorm
from bptt.training import History as History
from bptt.training import Interrupted as Interrupted
from bptt.training import NonFiniteWarning as NonFiniteWarning
from bptt.training import Online as Online
from bptt.training import Patience as Patience
from bptt.training import Progress as Progress
from bptt.training import Start as Start
from bptt.training import StoppingCriterion as StoppingCriterion
from bptt.training import TargetLoss as TargetLoss
from bptt.training import TimeLimit as TimeLimit
from bptt.training import evaluate as evaluate
from bptt.training import fit as fit
from bptt.training import predict as predict
from bptt.unfold import unfold as unfold

__version__ = "0.1.0"
