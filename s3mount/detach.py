"""Going into the background, so that the caller's exit status is the truth.

The parent stays until the child is ready, or has ended. The child keeps stderr until then:
whatever goes wrong is said where the command was typed.

INVARIANT: the fork comes before any thread, event loop or connection exists.
Must not know: what it is that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

Ready = Callable[[], None]

FAILED = 1

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# How long a child that was told to end may take to leave no dead mountpoint behind.
GRACE_SECONDS = 10.0


class _Signalled(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def in_background(run: Callable[[Ready], int]) -> int:
    """Call `run(ready)` in a child of its own session; return once it said ready.

    Returns 0 when `ready` was called, else the exit code that `run` returned (`FAILED` when the
    child died, which is then said on stderr). SIGINT, SIGTERM and SIGHUP while waiting end the
    child, too, and give 128 + the signal's number.

    `run` gets an empty stdin and stdout, "/" as its directory and umask 077. Once it has called
    `ready`, its stderr is gone as well.
    """
    reader, writer = os.pipe()  # closed on exec, both of them
    sys.stdout.flush()
    sys.stderr.flush()
    # A caller that ignores SIGCHLD hands that on to us, and no exit status could be had.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Held back until each side has its own handlers: a signal in between would leave a child
    # that nobody knows of. SIGCHLD stays so, for `_end` to wait for it.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(run, writer, unblocked)
    os.close(writer)
    # What nohup or a shell's "&" ignores stays ignored.
    handled = [each for each in _FORWARDED if signal.getsignal(each) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _raise) for number in handled}
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, {*unblocked, signal.SIGCHLD})
        return _wait(pid, reader)
    except _Signalled as signalled:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
        _end(pid)
        return 128 + signalled.number
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.close(reader)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise _Signalled(number)


# --- the parent -------------------------------------------------------------------


def _wait(pid: int, reader: int) -> int:
    if os.read(reader, 1):
        return 0
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        return code  # it said why
    how = "ended" if code == 0 else f"was killed by {signal.Signals(-code).name}"
    print(
        f"s3mount: the daemon {how} before the mount was ready;"
        " run it with -f --debug to see what it does",
        file=sys.stderr,
    )
    return FAILED


def _end(pid: int) -> None:
    """End the child: ask, then insist. It stays the parent's child, so the pid is its own."""
    os.kill(pid, signal.SIGTERM)
    if signal.sigtimedwait({signal.SIGCHLD}, GRACE_SECONDS) is None:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# --- the child --------------------------------------------------------------------


def _child(
    run: Callable[[Ready], int], writer: int, unblocked: set[int | signal.Signals]
) -> NoReturn:
    """Never returns into the caller's code, whatever happens."""
    code = FAILED
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.chdir("/")
        os.umask(0o077)
        _close_inherited()
        _to_devnull(0, 1)
        code = run(_once(lambda: _announce(writer)))
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else FAILED
    except BaseException as error:  # noqa: BLE001 -- a traceback is never a message
        print(f"s3mount: internal error: {error!r}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _once(act: Callable[[], None]) -> Ready:
    """`act`, the first time only."""
    pending = [act]

    def ready() -> None:
        if pending:
            pending.pop()()

    return ready


def _announce(writer: int) -> None:
    sys.stderr.flush()
    _to_devnull(2)
    # The caller may be gone (killed -9): the mount is there all the same.
    with contextlib.suppress(BrokenPipeError):
        os.write(writer, b"1")
    os.close(writer)


def _to_devnull(*fds: int) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(devnull, fd)
    os.close(devnull)


def _close_inherited() -> None:
    """Close what the caller left open to us, such as the lock of a shell script.

    Python opens all its own descriptors with close-on-exec; one without came through exec.
    """
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    os.close(fd)
