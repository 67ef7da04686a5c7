"""Language models of text files: the next character, or the next byte."""

from bptt.text._job import Job as Job
from bptt.text._model import Options as Options
from bptt.text._model import TextModel as TextModel
from bptt.text._model import load as load
from bptt.text._train import Result as Result
from bptt.text._train import Task as Task
from bptt.text._train import made as made
from bptt.text._train import save as save
from bptt.text._train import task as task
from bptt.text._train import train as train
