"""Runs on disk: what they were asked for, from their first moment, and what came of them."""

from bptt.runs._folder import CHECKPOINTS as CHECKPOINTS
from bptt.runs._folder import HISTORY as HISTORY
from bptt.runs._folder import MODEL as MODEL
from bptt.runs._folder import RECORD as RECORD
from bptt.runs._folder import check_folder as check_folder
from bptt.runs._folder import check_size as check_size
from bptt.runs._folder import load_weights as load_weights
from bptt.runs._folder import read_json as read_json
from bptt.runs._folder import task_of as task_of
from bptt.runs._folder import tensors_of as tensors_of
from bptt.runs._folder import whole as whole
from bptt.runs._folder import write_record as write_record
from bptt.runs._job import Job as Job
from bptt.runs._job import begin as begin
from bptt.runs._job import begun as begun
from bptt.runs._job import note as note
