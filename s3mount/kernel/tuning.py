"""Settings of the kernel's side of a mount, where this process may change them.

The kernel reads ahead 128 KiB by default, in requests of as much. 1,024 KiB makes requests of
1 MiB, and a stream two to four times as fast through pyfuse3 (measured: 0.4-0.9 against
1.9-2.6 GB/s of empty reads); above that nothing is gained. Only root may write it.

It also keeps no more than 12 requests in the background, and every read of a descriptor of
its own counts as one: 32 programs that read at random got 440 reads/s at 25 ms, and with
`MAX_BACKGROUND` 1,050.

The kernel sets both to its defaults as it takes the answer to INIT: `tune` a mount that
has answered.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from s3mount.kernel import fusectl
from s3mount.kernel.mountpoint import Mounted

log = logging.getLogger(__name__)

READ_AHEAD_KB = 1024
MAX_BACKGROUND = 64

_BDI = Path("/sys/class/bdi")


def tune(mounted: Mounted, *, bdi: Path = _BDI, connections: Path = fusectl.CONNECTIONS) -> bool:
    """Raise the kernel's readahead for this mount; whether that was permitted.

    Not being permitted costs speed, nothing else: it is said once, in the log.
    """
    setting = bdi / mounted.device / "read_ahead_kb"
    is_tuned = _write(setting, READ_AHEAD_KB)
    if not is_tuned:
        log.info(
            "%s could not be set to %d: streams are slower; root may set it, or have udev do so"
            " with systemd/90-s3mount.rules",
            setting,
            READ_AHEAD_KB,
        )
    try:
        with fusectl.connection(mounted.device.partition(":")[2], connections) as directory:
            _write_at(directory, "max_background", MAX_BACKGROUND)
            _write_at(directory, "congestion_threshold", MAX_BACKGROUND * 3 // 4)
    except OSError as error:
        log.debug("max_background not set: %s", error)
    return is_tuned


def _write(setting: Path, value: int) -> bool:
    try:
        setting.write_text(str(value))
    except OSError as error:
        log.debug("%s not set: %s", setting, error)
        return False
    return True


def _write_at(directory: int, name: str, value: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
