"""An S3 on this machine with a latency model and faults to order: nginx, Lua and a little Python.

Purpose: to be a server that is never what is measured. Its answers come after a set time to the
first byte and no faster than a set rate per connection (both can be switched off), its bytes by
sendfile, its listings from a sorted array.
"""

from benchmarks.modelled_s3.faults import Fault, FaultKind
from benchmarks.modelled_s3.server import Counts, ModelledS3, ModelledS3Error

__all__ = ["Counts", "Fault", "FaultKind", "ModelledS3", "ModelledS3Error"]
