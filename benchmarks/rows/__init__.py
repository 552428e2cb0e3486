"""The rows of the table, in the order in which they are shown."""

from benchmarks.rows.everyday import EVERYDAY
from benchmarks.rows.faults import FAULTS
from benchmarks.rows.names import NAMES_ROWS
from benchmarks.rows.row import Row
from benchmarks.rows.small_files import SMALL_FILES
from benchmarks.rows.streams import STREAMS

ROWS: tuple[Row, ...] = (*STREAMS, *NAMES_ROWS, *SMALL_FILES, *EVERYDAY, *FAULTS)

__all__ = ["ROWS", "Row"]
