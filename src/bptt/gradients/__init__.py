"""Gradient methods: one verb, ``updates(network, loss, stream, state=None)``."""

from bptt.gradients._evolution import EvolutionStrategies as EvolutionStrategies
from bptt.gradients._full import Full as Full
from bptt.gradients._truncated import SlidingWindow as SlidingWindow
from bptt.gradients._truncated import Truncated as Truncated
from bptt.gradients._update import GradientMethod as GradientMethod
from bptt.gradients._update import Update as Update
from bptt.gradients.forward._focused import Focused as Focused
from bptt.gradients.forward._rtrl import RTRL as RTRL
from bptt.gradients.forward._uoro import UORO as UORO
