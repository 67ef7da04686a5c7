"""Ordered data: sequences of input–target pairs, laid on lanes, read in chunks."""

from bptt.streams._chunk import Batch as Batch
from bptt.streams._chunk import Chunk as Chunk
from bptt.streams._chunk import TensorBatch as TensorBatch
from bptt.streams._columns import Table as Table
from bptt.streams._moved import copies as copies
from bptt.streams._moved import on_device as on_device
from bptt.streams._parse import is_number as is_number
from bptt.streams._stream import Stream as Stream
from bptt.streams._text import Vocabulary as Vocabulary
