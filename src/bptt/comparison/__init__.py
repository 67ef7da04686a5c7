"""Training methods against each other, on the same network, from the same starts, on one budget."""

from bptt.comparison._compare import DEFAULT as DEFAULT
from bptt.comparison._compare import check as check
from bptt.comparison._compare import compare as compare
from bptt.comparison._meter import Budget as Budget
from bptt.comparison._methods import METHODS as METHODS
from bptt.comparison._methods import Rival as Rival
from bptt.comparison._result import Comparison as Comparison
from bptt.comparison._result import Row as Row
from bptt.comparison._result import Run as Run
