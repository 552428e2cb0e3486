"""Log lines: where they go, and that no secret is among them."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount import log
from s3mount.errors import UsageError
from tests.cli.conftest import Command

LEAKS = [
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026/s3, SignedHeaders=host, Signature=SECRET",
    "{'Authorization': b'AWS4-HMAC-SHA256 Credential=AKIA, Signature=SECRET', 'Host': 'x'}",
    "proxy-authorization: Basic SECRET",
    "authorization=Bearer SECRET",
    "GET /logs/key?X-Amz-Signature=SECRET&X-Amz-Expires=5",
    "GET /logs/key?X-Amz-Credential=SECRET%2F2026&x=1",
    "'x-amz-security-token': 'SECRET=='",
    "x-amz-security-token: SECRET",
    "aws_secret_access_key = SECRET",
    '{"SecretAccessKey": "SECRET", "SessionToken" : "SECRET"}',
    "secret_access_key=SECRET session_token=SECRET",
    "http://user:SECRET@proxy:3128/",
    "password: SECRET",
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is one for the whole process: give it back as it was."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers = []
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level, logging.raiseExceptions = handlers, level, raising
    for name in ("s3mount", *log._QUIET):
        logging.getLogger(name).setLevel(logging.NOTSET)


Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("text", LEAKS)
def test_secrets_are_hidden(text: str) -> None:
    shown = log.redacted(text)
    assert "SECRET" not in shown
    assert "[hidden]" in shown


@pytest.mark.parametrize(
    "text", ["GET logs/2026/11.gz bytes=0-1048575", "s3://logs/a:b@c", "authorization failed"]
)
def test_other_text_stays(text: str) -> None:
    assert log.redacted(text) == text


def test_secrets_in_arguments_and_tracebacks_are_hidden(capsys: Captured) -> None:
    log.setup("info", file=None, foreground=True)
    try:
        raise ValueError(LEAKS[0])
    except ValueError:
        logging.getLogger("s3mount.s3").exception("failed with %s", LEAKS[4])
    err = capsys.readouterr().err
    assert "SECRET" not in err
    assert "Traceback" in err


def test_libraries_stay_quiet_whatever_the_level(capsys: Captured) -> None:
    logging.getLogger("botocore").setLevel(logging.DEBUG)  # as boto3.set_stream_logger does
    log.setup("debug", file=None, foreground=True)
    logging.getLogger("s3mount.s3").debug("ours")
    logging.getLogger("botocore.auth").debug("theirs")
    logging.getLogger("urllib3.connectionpool").info("theirs")
    logging.getLogger("any.other").info("theirs")
    logging.getLogger("botocore").warning("a warning of theirs")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["ours", "a warning of theirs"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")],
)
def test_levels(level: str, expected: str, capsys: Captured) -> None:
    log.setup(level, file=None, foreground=True)
    logger = logging.getLogger("s3mount.x")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    assert "".join(line[-1] for line in capsys.readouterr().err.splitlines()) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_key_never_makes_a_line_of_its_own(key: str) -> None:
    record = logging.LogRecord("s3mount", logging.INFO, "", 0, "%s", (key,), None)
    text = log.Formatter("%(message)s").format(record)
    assert not any(ord(c) < 32 and c != "\t" for c in text)
    assert "\x1b" not in text


def test_journal_priorities_on_every_line(capsys: Captured) -> None:
    log.setup("info", file=None, foreground=True, journal=True)
    logger = logging.getLogger("s3mount.x")
    logger.info("hello")
    try:
        raise ValueError("a bug")
    except ValueError:
        logger.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "<6>INFO    s3mount.x: hello"
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[1:])


def test_the_journal_is_recognized(command: Command, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        stat = os.fstat(stderr.fileno())
        env = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        with command.spawn("ready", "-f", "logs", "/mnt", stderr=stderr, env=env) as process:
            command.report()
            process.terminate()
            process.communicate(timeout=30)
        stderr.seek(0)
        assert stderr.readline().startswith("<4>WARNING s3mount.fake: a warning before")


def test_log_file_is_reopened_after_rotation(tmp_path: Path) -> None:
    path = tmp_path / "s3mount.log"
    log.setup("info", file=path, foreground=False)
    logging.getLogger("s3mount").info("one")
    path.rename(tmp_path / "s3mount.log.1")
    logging.getLogger("s3mount").info("two \udcff")
    assert path.read_text().endswith("s3mount: two \\udcff\n")
    assert path.read_text().count("\n") == 1


def test_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: Is a directory"):
        log.setup("info", file=tmp_path, foreground=False)


def test_background_logs_to_syslog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    path = tmp_path / "dev-log"
    monkeypatch.setattr(log, "SYSLOG_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(20)
        log.setup("info", file=None, foreground=False)
        logging.getLogger("s3mount.x").info("hello")
        daemon_info = (3 << 3) | 6  # RFC 5424, 6.2.1
        expected = f"<{daemon_info}>s3mount[{os.getpid()}]: INFO    s3mount.x: hello"
        assert channel.recv(1000).rstrip(b"\0").decode() == expected
    assert capsys.readouterr().err == ""


def test_background_without_syslog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(log, "SYSLOG_SOCKET", tmp_path / "nothing")
    log.setup("info", file=None, foreground=False)
    logging.getLogger("s3mount").info("a detail")
    logging.getLogger("s3mount").warning("a warning")
    assert capsys.readouterr().err == "s3mount: a warning\n"


def test_what_was_said_is_logged_everywhere_but_there(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "log"
    log.setup("info", file=path, foreground=False)
    log.said("it failed")
    assert capsys.readouterr().err == ""
    assert path.read_text().endswith("it failed\n")


def test_python_warnings_are_log_lines(capsys: Captured) -> None:
    log.setup("info", file=None, foreground=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "py.warnings" in capsys.readouterr().err


def test_once(caplog: pytest.LogCaptureFixture) -> None:
    once = log.Once(logging.getLogger("s3mount.once"))
    assert once.say(logging.WARNING, "a", "%s is skipped", "a//b")
    assert not once.say(logging.WARNING, "a", "%s is skipped", "a//c")
    assert once.say(logging.WARNING, "b", "other")


def test_once_is_bounded() -> None:
    once = log.Once(logging.getLogger("s3mount.once"))
    said = sum(once.say(logging.DEBUG, key, "x") for key in range(2 * log.Once.LIMIT))
    assert said == log.Once.LIMIT
