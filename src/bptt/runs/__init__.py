"""Runs on disk: what they were asked for, from their first moment, and what came of them."""

from bptt.runs._folder import CHECKPOINTS as CHECKPOINTS
from bptt.runs._folder import HISTORY as HISTORY
from bptt.runs._folder import MODEL as MODEL
from bptt.runs._folder import RECORD as RECORD
from bptt.runs._folder import Files as Files
from bptt.runs._folder import check_size as check_size
from bptt.runs._folder import load_weights as load_weights
from bptt.runs._folder import read_run as read_run
from bptt.runs._folder import task_of as task_of
from bptt.runs._folder import tensors_of as tensors_of
from bptt.runs._job import Job as Job
from bptt.runs._job import begin as begin
from bptt.runs._job import begun as begun
from bptt.runs._job import forget as forget
from bptt.runs._job import note as note
from bptt.runs._job import place_of_job as place_of_job
from bptt.runs._job import saved_in as saved_in
from bptt.runs._owned import JOB as JOB
from bptt.runs._owned import check_folder as check_folder
from bptt.runs._owned import check_free as check_free
from bptt.runs._owned import owned as owned
from bptt.runs._owned import sweep as sweep
from bptt.runs._write import Made as Made
from bptt.runs._write import put as put
from bptt.runs._write import settle as settle
from bptt.runs._write import write_run as write_run
