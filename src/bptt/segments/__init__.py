"""Recomputation in segments: which states are kept, what a sweep holds, what fits a budget."""

from bptt.segments._ahead import one_ahead as one_ahead
from bptt.segments._bytes import Freed as Freed
from bptt.segments._bytes import available as available
from bptt.segments._bytes import bytes_of as bytes_of
from bptt.segments._bytes import give_back as give_back
from bptt.segments._bytes import readable as readable
from bptt.segments._checkpointed import checkpointed_unfold as checkpointed_unfold
from bptt.segments._core import deltas as deltas
from bptt.segments._core import held as held
from bptt.segments._core import programs as programs
from bptt.segments._draws import Draws as Draws
from bptt.segments._draws import drawn_from as drawn_from
from bptt.segments._draws import draws as draws
from bptt.segments._plan import Costs as Costs
from bptt.segments._plan import Line as Line
from bptt.segments._plan import SegmentPlan as SegmentPlan
from bptt.segments._plan import choose as choose
from bptt.segments._plan import lines as lines
from bptt.segments._plan import state_bytes as state_bytes
from bptt.segments._revolve import advances as advances
from bptt.segments._revolve import repetitions as repetitions
from bptt.segments._revolve import reversed_states as reversed_states
from bptt.segments._run import Entry as Entry
from bptt.segments._run import Unchanged as Unchanged
from bptt.segments._run import entering as entering
from bptt.segments._run import kept as kept
