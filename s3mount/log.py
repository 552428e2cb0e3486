"""Where log lines go and what they look like.

Three destinations: stderr (in the foreground, with priorities for the journal when it is the
journal that reads), a file, or syslog (in the background).

INVARIANT: no secret reaches a log. The libraries below log headers and signatures at their
debug level: they are held at WARNING, whatever --debug says, and every line is redacted on top.
Must not know: Config's other fields, S3, FUSE.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from s3mount.errors import UsageError

SYSLOG_SOCKET = Path("/dev/log")

_QUIET = ("boto3", "botocore", "s3transfer", "urllib3", "diskcache", "asyncio")

_SECRET = re.compile(
    r"""(?ix)
    ( (?: x-amz-(?:signature|credential|security-token) | (?:proxy-)?authorization
        | (?:aws_)?secret_?access_?key | (?:aws_)?session_?token | password )
      ["']? \s* [:=] \s* (?:b(?=["']))?["']? )
    (?: (?:AWS4-HMAC-SHA256|AWS|Basic|Bearer) \s [^'"\r\n]* | [^\s'"&,;)}\]<>]+ )
    """
)
_URL_PASSWORD = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]*@")

# Keys are anybody's text: a newline in one must not look like a line of its own, nor an
# escape sequence reach a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)] if code != 9}

# sd-daemon(3): what the journal makes of "<N>" in front of a line.
_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def redacted(text: str) -> str:
    """`text` with `[hidden]` instead of each signature, token, key and password."""
    return _URL_PASSWORD.sub(r"\1:[hidden]@", _SECRET.sub(r"\1[hidden]", text))


class Formatter(logging.Formatter):
    """One line per record (a traceback apart), redacted."""

    def __init__(self, layout: str, *, journal: bool = False) -> None:
        super().__init__(layout)
        self._journal = journal

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """The line, without what a terminal would obey."""
        record.message = record.message.translate(_CONTROLS)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record, traceback included."""
        text = redacted(super().format(record))
        if self._journal:
            mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
            return "\n".join(mark + line for line in text.splitlines())
        return text


_TIMED = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_BARE = "%(levelname)-7s %(name)s: %(message)s"


def setup(level: str, *, file: Path | None, foreground: bool, journal: bool = False) -> None:
    """Send log lines of `level` ("info") and above to where they belong.

    `file` is reopened when it was moved away (logrotate). Without one, the foreground logs to
    stderr, with the journal's priority marks if `journal`, and the background to syslog, if this
    machine has one. In the background, warnings go to stderr as well: it is the caller's until
    the mount is ready, and /dev/null from then on.

    Raises `UsageError` when `file` cannot be written.
    """
    logging.raiseExceptions = False  # a full disk must not make tracebacks on stderr
    handlers = _handlers(file, foreground=foreground, journal=journal)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("s3mount").setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _handlers(file: Path | None, *, foreground: bool, journal: bool) -> list[logging.Handler]:
    handlers: list[logging.Handler | None] = []
    if file is not None:
        handlers.append(_to_file(file))
    elif foreground:
        handlers.append(_to_stderr(journal))
    else:
        handlers.append(_to_syslog())
    if not foreground:
        handlers.append(_to_caller())
    return [handler for handler in handlers if handler is not None]


def said(error: object, *, traceback: bool = False) -> None:
    """Log an error that was written to stderr already: everywhere but there.

    `traceback`: with that of the exception being handled.
    """
    # Without `setup`, logging would write it to stderr itself.
    if logging.getLogger().handlers:
        logging.getLogger("s3mount").error("%s", error, exc_info=traceback, extra={"said": True})


def _not_said(record: logging.LogRecord) -> bool:
    return not getattr(record, "said", False)


def _to_file(file: Path) -> logging.Handler:
    import logging.handlers  # noqa: PLC0415 -- 8 ms that --help and a typing error need not cost

    try:
        handler = logging.handlers.WatchedFileHandler(
            file, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise UsageError(
            f"--log-file {str(file)!r} cannot be written: {error.strerror}",
            "give a file in a directory that you may write to",
        ) from None
    handler.setFormatter(Formatter(_TIMED))
    return handler


def _to_stderr(journal: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(_BARE if journal else _TIMED, journal=journal))
    handler.addFilter(_not_said)
    return handler


def _to_caller() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(Formatter("s3mount: %(message)s"))
    handler.addFilter(_not_said)
    return handler


def _to_syslog() -> logging.Handler | None:
    import logging.handlers  # noqa: PLC0415 -- 8 ms that --help and a typing error need not cost

    try:
        handler = logging.handlers.SysLogHandler(
            str(SYSLOG_SOCKET), logging.handlers.SysLogHandler.LOG_DAEMON
        )
    except OSError:
        return None
    handler.setFormatter(Formatter("s3mount[%(process)d]: " + _BARE))
    return handler


class Once:
    """Says a thing the first time only, so that a condition met a million times is one line."""

    # A bound, since keys may come from a bucket: past it, nothing new is said.
    LIMIT = 1000

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: set[object] = set()

    def say(self, level: int, key: object, message: str, *args: object) -> bool:
        """Log `message % args` unless `key` was said before; whether it was logged."""
        if key in self._said or len(self._said) >= self.LIMIT:
            return False
        self._said.add(key)
        self._logger.log(level, message, *args)
        return True
