"""Running the command, with a daemon that mounts nothing, as a process of its own."""

from __future__ import annotations

import ast
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def ended(pid: int, seconds: float = 20) -> bool:
    """Whether the process is gone, or goes within `seconds`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


class Command:
    """`python -m tests.cli.fake_daemon`, and what its daemon reported."""

    def __init__(self, directory: Path) -> None:
        self.started = directory / "started"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")
        } | {"PYTHONPATH": str(ROOT), "FAKE_DAEMON_STARTED": str(self.started)}

    def spawn(self, behaviour: str, *argv: str, **options: Any) -> subprocess.Popen[str]:
        # By env(1), as Popen's preexec_fn is not safe beside threads (pytest-timeout has one).
        ignored = options.pop("ignored", "")
        prefix = ["env", f"--ignore-signal={ignored}"] if ignored else []
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.cli.fake_daemon", *argv],
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.PIPE),
            text=True,
            env=self.environment | {"FAKE_DAEMON": behaviour} | options.pop("env", {}),
            **options,
        )

    def run(self, behaviour: str, *argv: str, **options: Any) -> tuple[int, str]:
        """Exit code and stderr. Ends when stderr is closed by all who had it."""
        with self.spawn(behaviour, *argv, **options) as process:
            out, err = process.communicate(timeout=30)
        assert out == ""
        return process.returncode, err

    def report(self) -> dict[str, Any]:
        """What the daemon saw when it started; waits for it."""
        limit = time.monotonic() + 20
        while not self.started.exists():
            assert time.monotonic() < limit, "the daemon did not start"
            time.sleep(0.005)
        report = ast.literal_eval(self.started.read_text())
        assert isinstance(report, dict)
        return report


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    if command.started.exists():
        pid = command.report()["pid"]
        if not ended(pid, 0):
            os.kill(pid, signal.SIGKILL)
            assert ended(pid)
