"""Forecasting tables: from named columns to a trained network, compared with linear models.

Two tasks of black-box modelling are told apart. In *prediction* the past targets are among the
inputs; in *simulation* the network sees the inputs alone. docs/forecasting.md tells what the
defaults do and why.
"""

from bptt.forecasting.data._checksum import seen as seen
from bptt.forecasting.data._scaling import Scaling as Scaling
from bptt.forecasting.data._select import select as select
from bptt.forecasting.data._series import Series as Series
from bptt.forecasting.data._split import Split as Split
from bptt.forecasting.data._sunspots import sunspots as sunspots
from bptt.forecasting.data._tables import Table as Table
from bptt.forecasting.data._tables import read_table as read_table
from bptt.forecasting.linear._linear import Linear as Linear
from bptt.forecasting.linear._study import linear_model as linear_model
from bptt.forecasting.model._forecaster import Forecaster as Forecaster
from bptt.forecasting.model._forecaster import Live as Live
from bptt.forecasting.model._metrics import Metrics as Metrics
from bptt.forecasting.model._options import Options as Options
from bptt.forecasting.runs._job import Job as Job
from bptt.forecasting.runs._plan import Plan as Plan
from bptt.forecasting.runs._report import DIAGNOSIS as DIAGNOSIS
from bptt.forecasting.runs._report import PAGE as PAGE
from bptt.forecasting.runs._report import diagnose_run as diagnose_run
from bptt.forecasting.runs._report import report as report
from bptt.forecasting.runs._run_folder import forecaster_of as forecaster_of
from bptt.forecasting.runs._run_folder import load as load
from bptt.forecasting.runs._run_folder import made as made
from bptt.forecasting.runs._run_folder import save as save
from bptt.forecasting.runs._train import Result as Result
from bptt.forecasting.runs._train import plan as plan
from bptt.forecasting.runs._train import train as train
