"""Settings of the kernel's side of a mount, where this process may change them.

The kernel reads ahead 128 KiB by default, in requests of as much. 1,024 KiB makes requests of
1 MiB, and a stream two to four times as fast through pyfuse3 (measured: 0.4-0.9 against
1.9-2.6 GB/s of empty reads); above that nothing is gained. Only root may write it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from s3mount.kernel.mountpoint import Mounted

log = logging.getLogger(__name__)

READ_AHEAD_KB = 1024
# Requests of the kernel's own readahead that may be under way; the default is 12.
MAX_BACKGROUND = 64

_BDI = Path("/sys/class/bdi")
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def tune(mounted: Mounted, *, bdi: Path = _BDI, connections: Path = _CONNECTIONS) -> bool:
    """Raise the kernel's readahead for this mount; whether that was permitted.

    Not being permitted costs speed, nothing else: it is said once, in the log.
    """
    setting = bdi / mounted.device / "read_ahead_kb"
    is_tuned = _write(setting, READ_AHEAD_KB)
    if not is_tuned:
        log.info(
            "%s could not be set to %d: streams are slower; root may set it, or a udev rule",
            setting,
            READ_AHEAD_KB,
        )
    connection = connections / mounted.device.partition(":")[2]
    if connection.is_dir():  # fusectl is not mounted everywhere
        _write(connection / "max_background", MAX_BACKGROUND)
        _write(connection / "congestion_threshold", MAX_BACKGROUND * 3 // 4)
    return is_tuned


def _write(setting: Path, value: int) -> bool:
    try:
        setting.write_text(str(value))
    except OSError as error:
        log.debug("%s not set: %s", setting, error)
        return False
    return True
