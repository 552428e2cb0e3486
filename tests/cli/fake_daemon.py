"""The real command with a daemon that mounts nothing: it does what FAKE_DAEMON says.

    FAKE_DAEMON=ready python -m tests.cli.fake_daemon BUCKET DIR

It writes `repr((pid, config, surroundings))` to the file FAKE_DAEMON_STARTED first.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import s3mount
from s3mount import detach
from s3mount.cli import main
from s3mount.config import Config
from s3mount.errors import MountError, UsageError

_logger = logging.getLogger("s3mount.fake")


def _pause_for_ever() -> NoReturn:
    while True:
        signal.pause()


def serve(
    config: Config, ready: Callable[[], None], stopping: Callable[[], None] = lambda: None
) -> None:
    """What s3mount.daemon.serve does, as far as the command can see."""
    umask = os.umask(0)
    os.umask(umask)
    report = {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "cwd": os.getcwd(),
        "umask": umask,
        "stdin": os.readlink("/proc/self/fd/0"),
        "heavy": sorted({"trio", "boto3"} & set(sys.modules)),
        "notify_socket": os.environ.get("NOTIFY_SOCKET"),
        "threads": len(os.listdir("/proc/self/task")),
        "config": repr(config),
    }
    behaviour = os.environ.get("FAKE_DAEMON", "return")
    if behaviour.startswith("ready"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as sigwait wants it
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if started := os.environ.get("FAKE_DAEMON_STARTED"):
        partial = Path(f"{started}.new")
        partial.write_text(repr(report))
        partial.rename(started)
    _BEHAVIOURS[behaviour](ready)
    stopping()


def _ready(ready: Callable[[], None]) -> None:
    _logger.warning("a warning before")
    _logger.info("a detail before")
    ready()
    ready()  # once more does no harm
    _logger.warning("a warning after")
    signal.sigwait({signal.SIGTERM})


def _ready_when_told(ready: Callable[[], None]) -> None:
    Path(os.environ["FAKE_DAEMON_GO"]).read_text()  # a FIFO
    ready()
    signal.sigwait({signal.SIGTERM})
    Path(os.environ["FAKE_DAEMON_DONE"]).touch()


def _return(ready: Callable[[], None]) -> None:
    ready()


def _break_later(ready: Callable[[], None]) -> None:
    ready()
    raise MountError("it broke later", "mount it again")


def _fail(_ready: Callable[[], None]) -> None:
    raise MountError("/mnt is not a directory", "make it one")


def _usage(_ready: Callable[[], None]) -> None:
    raise UsageError("--region fits no endpoint", "give another")


def _bug(_ready: Callable[[], None]) -> None:
    raise ZeroDivisionError("a bug")


def _no_libfuse(_ready: Callable[[], None]) -> None:
    raise ImportError("libfuse3.so.3: cannot open shared object file")


def _exit(_ready: Callable[[], None]) -> None:
    sys.exit(7)


def _exit_with_text(_ready: Callable[[], None]) -> None:
    sys.exit("text")


def _interrupt(_ready: Callable[[], None]) -> None:
    raise KeyboardInterrupt


def _leave(_ready: Callable[[], None]) -> None:
    return


def _die(_ready: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(_ready: Callable[[], None]) -> None:
    _pause_for_ever()


_BEHAVIOURS: dict[str, Callable[[Callable[[], None]], None]] = {
    "ready": _ready,
    "ready when told": _ready_when_told,
    "return": _return,
    "break later": _break_later,
    "fail": _fail,
    "usage": _usage,
    "bug": _bug,
    "no libfuse": _no_libfuse,
    "exit": _exit,
    "exit with text": _exit_with_text,
    "interrupt": _interrupt,
    "leave": _leave,
    "die": _die,
    "hang": _hang,
    "stubborn": _hang,
}


if __name__ == "__main__":
    module = types.ModuleType("s3mount.daemon")
    vars(module)["serve"] = serve
    sys.modules["s3mount.daemon"] = module
    vars(s3mount)["daemon"] = module
    detach.GRACE_SECONDS = 0.2
    sys.argv[0] = os.environ.get("FAKE_PROGRAM", sys.argv[0])
    sys.exit(main())
