"""What one can see: reach of the gradient, dynamics, surface of the loss, spread of optima."""

from bptt.diagnostics._diagnosis import Diagnosis as Diagnosis
from bptt.diagnostics._diagnosis import diagnose as diagnose
from bptt.diagnostics._dynamics import Dynamics as Dynamics
from bptt.diagnostics._optima import Optima as Optima
from bptt.diagnostics._page import Section as Section
from bptt.diagnostics._page import Table as Table
from bptt.diagnostics._page import is_page as is_page
from bptt.diagnostics._page import is_picture as is_picture
from bptt.diagnostics._page import page as page
from bptt.diagnostics._page import sections_of as sections_of
from bptt.diagnostics._reach import Depth as Depth
from bptt.diagnostics._reach import Reach as Reach
from bptt.diagnostics._saturation import Squashed as Squashed
from bptt.diagnostics._saved import PARTS as PARTS
from bptt.diagnostics._saved import check_place as check_place
from bptt.diagnostics._saved import owned as owned
from bptt.diagnostics._surface import Plane as Plane
from bptt.diagnostics._surface import Surface as Surface
