"""Into the background: the exit status is the truth, and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command, ended


def test_zero_means_ready_and_the_daemon_lives_on(command: Command) -> None:
    # That run() returns shows that the daemon let go of our stdout and stderr.
    code, err = command.run("ready", "logs", "/mnt")
    assert code == 0
    assert err == "s3mount: a warning before\n"
    report = command.report()
    assert not ended(report["pid"], 0)
    os.kill(report["pid"], signal.SIGTERM)
    assert ended(report["pid"])


def test_surroundings_of_the_daemon(command: Command, tmp_path: Path) -> None:
    code, _ = command.run("return", "logs", "here", cwd=tmp_path, stdin=subprocess.PIPE)
    assert code == 0
    report = command.report()
    assert report["session"] == report["pid"]
    assert report["cwd"] == "/"
    assert report["umask"] == 0o077
    assert report["stdin"] == "/dev/null"
    assert report["threads"] == 1
    assert report["heavy"] == []
    assert f"mountpoint=PosixPath('{tmp_path}/here')" in report["config"]


@pytest.mark.parametrize(
    ("behaviour", "code", "message"),
    [
        ("fail", 1, "s3mount: /mnt is not a directory; make it one\n"),
        ("usage", 2, "s3mount: --region fits no endpoint; give another\n"),
        ("bug", 1, "s3mount: internal error: ZeroDivisionError('a bug'); run with -f --debug"),
        ("no libfuse", 1, "s3mount: libfuse3.so.3: cannot open shared object file; install"),
        ("exit", 7, ""),
        ("exit with text", 1, ""),
        ("interrupt", 130, ""),
        ("leave", 1, "s3mount: the daemon ended before the mount was ready; run it with -f"),
        ("die", 1, "s3mount: the daemon was killed by SIGKILL before the mount was ready;"),
    ],
)
def test_failure_is_told_where_the_command_was_typed(
    command: Command, behaviour: str, code: int, message: str
) -> None:
    actual, err = command.run(behaviour, "logs", "/mnt")
    assert actual == code
    assert err.startswith(message)
    assert err.count("\n") == bool(message)
    assert ended(command.report()["pid"], 0)


@pytest.mark.parametrize("behaviour", ["hang", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_waiting_ends_the_daemon_too(
    command: Command, behaviour: str, number: signal.Signals
) -> None:
    with command.spawn(behaviour, "logs", "/mnt") as process:
        pid = command.report()["pid"]
        assert pid != process.pid
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err == ""
    assert ended(pid, 0)


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_the_caller_ignores_stays_ignored(command: Command, ignored: signal.Signals) -> None:
    with command.spawn("hang", "logs", "/mnt", ignored=ignored.name[3:]) as process:
        pid = command.report()["pid"]
        process.send_signal(ignored)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert ended(pid, 0)


def test_a_caller_that_ignores_its_children(command: Command) -> None:
    code, err = command.run("fail", "logs", "/mnt", ignored="CHLD")
    assert (code, err) == (1, "s3mount: /mnt is not a directory; make it one\n")


@pytest.mark.parametrize(
    ("behaviour", "code"), [("fail", 32), ("usage", 1), ("bug", 32), ("return", 0)]
)
def test_exit_codes_are_those_of_mount_for_its_helper(
    command: Command, behaviour: str, code: int
) -> None:
    env = {"FAKE_PROGRAM": "/sbin/mount.fuse.s3mount"}
    assert command.run(behaviour, "logs", "/mnt", "-o", "ro", env=env)[0] == code


def test_the_daemon_outlives_a_caller_that_was_killed(command: Command, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    os.mkfifo(go)
    # A file: what the daemon says must not need us, either.
    with (tmp_path / "stderr").open("w") as stderr:
        env = {"FAKE_DAEMON_GO": str(go), "FAKE_DAEMON_DONE": str(done)}
        with command.spawn("ready when told", "logs", "/mnt", stderr=stderr, env=env) as caller:
            pid = command.report()["pid"]
            caller.kill()
            caller.wait(30)
            go.write_text("now ready() meets a pipe without a reader")
    os.kill(pid, signal.SIGTERM)
    assert ended(pid)
    assert done.exists()  # it came past ready(), to wait for SIGTERM
    assert (tmp_path / "stderr").read_text() == ""


def test_what_the_caller_left_open_is_closed(command: Command, tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    code, _ = command.run("ready", "logs", "/mnt", pass_fds=[lock])
    assert code == 0
    os.close(lock)
    again = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the daemon holds it
    os.close(again)


def test_in_front(command: Command) -> None:
    with command.spawn("ready", "-f", "logs", "/mnt") as process:
        report = command.report()
        assert report["pid"] == process.pid
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    messages = [line.split(": ", 1)[1] for line in err.splitlines()]
    assert messages == ["a warning before", "a detail before", "a warning after"]
    assert report["cwd"] == os.getcwd()


@pytest.mark.parametrize(
    ("behaviour", "code", "message"),
    [
        ("return", 0, ""),
        ("fail", 1, "s3mount: /mnt is not a directory; make it one\n"),
        ("usage", 2, "s3mount: --region fits no endpoint; give another\n"),
        ("interrupt", 130, ""),
        ("break later", 1, "s3mount: it broke later; mount it again\n"),
    ],
)
def test_failure_in_front(command: Command, behaviour: str, code: int, message: str) -> None:
    assert command.run(behaviour, "-f", "logs", "/mnt") == (code, message)


def test_debug_shows_where_a_bug_is(command: Command) -> None:
    code, err = command.run("bug", "-f", "--debug", "logs", "/mnt")
    assert code == 1
    assert "fake_daemon.py" in err
    assert "s3mount: internal error: ZeroDivisionError('a bug')" in err


@pytest.mark.parametrize("argv", [[], ["-f"], ["-f", "--debug"]], ids=" ".join)
def test_a_bug_is_one_line_on_stderr_and_a_traceback_in_the_log_file(
    argv: list[str], command: Command, tmp_path: Path
) -> None:
    log = tmp_path / "s3mount.log"
    code, err = command.run("bug", *argv, "logs", "/mnt", "--log-file", str(log))
    assert code == 1
    assert err.count("\n") == 1
    assert log.read_text().count("Traceback") == 1


def test_log_file_from_the_background(command: Command, tmp_path: Path) -> None:
    log = tmp_path / "s3mount.log"
    code, err = command.run("break later", "logs", "/mnt", "--log-file", str(log))
    assert (code, err) == (0, "")
    assert ended(command.report()["pid"])
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(
        rf"{stamp} ERROR   s3mount: it broke later; mount it again\n", log.read_text()
    )
    assert log.stat().st_mode & 0o777 == 0o600


def test_log_file_that_cannot_be_written(command: Command) -> None:
    code, err = command.run("ready", "logs", "/mnt", "--log-file", "/no/such/dir/log")
    assert code == 2
    assert err == (
        "s3mount: --log-file '/no/such/dir/log' cannot be written: No such file or directory;"
        " give a file in a directory that you may write to\n"
    )


def test_rw_is_said_once(command: Command) -> None:
    code, err = command.run("return", "logs", "/mnt", "-o", "rw,dev,suid")
    assert code == 0
    assert re.fullmatch(r"s3mount: WARNING: the bucket is mounted read-only; [^\n]*\n", err)
