"""The one table of options, and how the text of each becomes its value.

The command line, `-o`, the config file, `--help` and the table in the README are all made
from `OPTIONS`, so that they cannot drift apart. Defaults are those of `Config`.

INVARIANT: every row with a place other than the command line's own (`--help`, `-o`...)
names a field of `Config`. Must not know: argparse, files, the environment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from s3mount import units
from s3mount.config import GIB, KIB, MIB, Config
from s3mount.errors import UsageError


@dataclass(frozen=True, slots=True)
class Kind:
    """How one sort of value is written. `parse` raises `ValueError` with a clause."""

    parse: Callable[[str], Any]
    format: Callable[[Any], str]
    allowed: str  # behind "give "
    metavar: str | None  # None: a flag, which takes no value
    toml_types: tuple[type, ...] = (str,)


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("holds a NUL")
    return text


def _parse_path(text: str) -> Path:
    return Path(_parse_text(text))


def _parse_path_or_none(text: str) -> Path | None:
    return None if text == "none" else _parse_path(text)


def _parse_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", text, re.I):
        raise ValueError("is not a URL of a service")
    return text.rstrip("/")


def _parse_account(text: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", text, re.A):
        raise ValueError("is not an account id")
    return text


def _parse_region(text: str) -> str:
    # botocore puts it into a host name.
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", text, re.A):
        raise ValueError("is not the name of a region")
    return text


def _parse_share(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text, re.A):
        raise ValueError("is not a share")
    return float(text)


def _parse_programs(text: str) -> tuple[str, ...]:
    # Commas mean something else in -o, and blanks in fstab: so any of three.
    names = tuple(name for name in re.split(r"[,:\s]+", text) if name)
    if not names:
        raise ValueError("names no program")
    if any("/" in name for name in names):
        raise ValueError("holds a path: the names of programs are meant")
    return () if names == ("none",) else names


def _power_of_two(value: int) -> str:
    return "" if value & (value - 1) == 0 else "is not a power of two"


SIZE = Kind(units.parse_size, units.format_size, "a size such as 512M or 10G", "SIZE", (str, int))
DURATION = Kind(
    units.parse_duration,
    units.format_duration,
    "a time such as 250ms, 30s, 5m or 1h",
    "TIME",
    (str, int, float),
)
TTL = dataclasses.replace(DURATION, allowed="a time such as 30s, 5m or 1h, 0 or forever")
SHARE = Kind(_parse_share, "{:g}".format, "a share such as 0.1", "SHARE", (str, int, float))
COUNT = Kind(units.parse_count, str, "a whole number", "N", (str, int))
# A TOML number would be read as decimal: 644 is not 0644. Hence text only.
MODE = Kind(units.parse_mode, units.format_mode, "octal digits from 0000 to 0777", "MODE")
UID = Kind(units.parse_uid, str, "a number or the name of a user", "USER", (str, int))
GID = Kind(units.parse_gid, str, "a number or the name of a group", "GROUP", (str, int))
PATH = Kind(_parse_path, str, "a path", "FILE")
CACHE_DIR = Kind(_parse_path_or_none, str, "a directory or none", "DIR")
URL = Kind(_parse_url, str, "http://HOST[:PORT] or https://HOST[:PORT]", "URL")
ACCOUNT = Kind(_parse_account, str, "the 12 digits of an AWS account", "ACCOUNT")
REGION = Kind(_parse_region, str, "a name such as eu-central-1", "REGION")
TEXT = Kind(_parse_text, str, "a name", "NAME")
PROGRAMS = Kind(
    _parse_programs,
    lambda names: ", ".join(names) or "none",
    "names separated by commas, colons or blanks, or none",
    "NAMES",
)
FLAG = Kind(units.parse_flag, units.format_flag, "true or false", None, (bool,))

COMMAND_LINE, MOUNT_OPTION, FILE = "command line", "-o", "config file"
_EVERYWHERE = frozenset({COMMAND_LINE, MOUNT_OPTION, FILE})


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `name` is spelled with dashes; underscores mean the same."""

    name: str
    kind: Kind
    group: str
    help: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None  # "" or a clause that says what is wrong
    allowed: str = ""  # instead of the kind's
    short: str = ""
    default_text: str = ""  # where Config cannot tell it
    places: frozenset[str] = _EVERYWHERE
    field: str = ""  # of Config; "" means the name with underscores

    @property
    def config_field(self) -> str:
        """The field of `Config` that holds the value."""
        return self.field or self.name.replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.kind is FLAG

    @property
    def negated_name(self) -> str:
        """The name that turns a flag off: "no-fips", "sign-request"."""
        return self.name[3:] if self.name.startswith("no-") else f"no-{self.name}"

    @property
    def default(self) -> str:
        """The default as a user would write it; "" when there is none."""
        if self.default_text:
            return self.default_text
        value = _CONFIG_DEFAULTS.get(self.config_field)
        if value is None or self.is_flag:
            return ""
        return self.kind.format(value)

    @property
    def permitted(self) -> str:
        """What may be given, for an error message."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.allowed:
            return self.allowed
        limits = ""
        if self.least is not None and self.most is not None:
            limits = f", from {self.kind.format(self.least)} to {self.kind.format(self.most)}"
        elif self.least is not None:
            limits = f", at least {self.kind.format(self.least)}"
        return self.kind.allowed + limits

    def parse(self, text: str, where: str) -> Any:
        """The value that `text` stands for.

        `where` says where it was written ("--uid"); raises `UsageError`.
        """
        try:
            value = self.kind.parse(text)
            if self.choices and value not in self.choices:
                raise ValueError("is unknown")
            if self.least is not None and value < self.least:
                raise ValueError("is too small")
            if self.most is not None and value > self.most:
                raise ValueError("is too large")
            if self.check is not None and (problem := self.check(value)):
                raise ValueError(problem)
        except ValueError as error:
            raise UsageError(f"{where} {text!r} {error}", f"give {self.permitted}") from None
        return value


class Setting(NamedTuple):
    """One option with its value, as the user gave it somewhere."""

    option: Option
    value: Any
    where: str  # "--uid", "-o uid", "/etc/s3mount/logs.toml, line 3: uid"


_CONFIG_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Config)
    if field.default is not dataclasses.MISSING
}

_WHAT, _S3, _FILES, _FRESH = "what and where", "S3", "files", "freshness"
_CACHE, _REQUESTS, _DAEMON = "cache and memory", "requests", "running"
GROUPS = (_S3, _FILES, _FRESH, _CACHE, _REQUESTS, _DAEMON)

BUCKET = Option(
    "bucket", TEXT, _WHAT, "BUCKET[/PREFIX] to mount", places=frozenset({FILE}), field="source"
)
MOUNTPOINT = Option("mountpoint", PATH, _WHAT, "directory to mount it at", places=frozenset({FILE}))
CONFIG = Option(
    "config",
    PATH,
    _DAEMON,
    "read options from this TOML file, same names; bucket and mountpoint may be there too",
    places=frozenset({COMMAND_LINE, MOUNT_OPTION}),
)
FSNAME = Option(
    "fsname",
    TEXT,
    _WHAT,
    "the source that df and /proc/mounts show",
    places=frozenset({MOUNT_OPTION}),
    field="source",
)
READ_ONLY = Option("read-only", FLAG, _FILES, "no writing; for now the only way there is")
CACHE_DIR_OPTION = Option(
    "cache-dir",
    CACHE_DIR,
    _CACHE,
    "directory of the disk cache; none: no disk cache",
    default_text="~/.cache/s3mount, for root /var/cache/s3mount",
)

OPTIONS: tuple[Option, ...] = (
    BUCKET,
    MOUNTPOINT,
    Option("endpoint-url", URL, _S3, "the service, if it is not AWS"),
    Option("region", REGION, _S3, "region of the bucket (default: found out)"),
    Option("profile", TEXT, _S3, "profile of ~/.aws/config and credentials"),
    Option("no-sign-request", FLAG, _S3, "anonymous requests, for public buckets"),
    Option("requester-pays", FLAG, _S3, "agree to pay for requests and transfer"),
    Option("path-style", FLAG, _S3, "URLs with the bucket in the path, not in the host name"),
    Option("dualstack", FLAG, _S3, "endpoints that speak IPv6 too"),
    Option("fips", FLAG, _S3, "endpoints validated for FIPS 140"),
    Option("accelerate", FLAG, _S3, "transfer-acceleration endpoints"),
    Option("ca-bundle", PATH, _S3, "certificate authorities to trust, PEM"),
    Option("expected-bucket-owner", ACCOUNT, _S3, "fail unless this account owns the bucket"),
    READ_ONLY,
    Option("uid", UID, _FILES, "owner of all files (default: you)"),
    Option("gid", GID, _FILES, "group of all files (default: yours)"),
    Option("file-mode", MODE, _FILES, "permissions of files", default_text="0644"),
    Option("dir-mode", MODE, _FILES, "permissions of directories", default_text="0755"),
    Option(
        "umask",
        MODE,
        _FILES,
        "where no mode is given: what to take from 0666 and 0777",
        default_text="0022",
    ),
    Option("allow-other", FLAG, _FILES, "let all users in, as the modes allow"),
    Option("allow-root", FLAG, _FILES, "let root in, beside you"),
    Option(
        "keep-out",
        PROGRAMS,
        _FILES,
        "programs that may not list directories, so that none indexes the bucket; none: all may",
        default_text="updatedb, tracker, baloo and the like",
    ),
    Option("metadata-ttl", TTL, _FRESH, "how long listings and attributes are believed"),
    Option("negative-ttl", TTL, _FRESH, "how long a name that was not there stays so", least=0),
    Option(
        "persist-metadata",
        FLAG,
        _FRESH,
        "keep names in the cache directory, for the next mount to go on with",
    ),
    CACHE_DIR_OPTION,
    Option("cache-size", SIZE, _CACHE, "limit of the disk cache", least=16 * MIB),
    Option(
        "block-size",
        SIZE,
        _CACHE,
        "unit of reading and caching",
        least=128 * KIB,
        most=16 * MIB,
        check=_power_of_two,
        allowed="128K, 256K, 512K, 1M, 2M, 4M, 8M or 16M",
    ),
    Option("memory-limit", SIZE, _CACHE, "memory for blocks", least=32 * MIB, most=1024 * GIB),
    Option(
        "readahead-files",
        COUNT,
        _CACHE,
        "files fetched before they are opened, when files are read in order; 0: none",
        least=0,
        most=1024,
    ),
    Option(
        "read-timeout",
        DURATION,
        _REQUESTS,
        "try again when nothing arrives for this long",
        least=0.1,
        most=3600,
    ),
    Option(
        "deadline",
        DURATION,
        _REQUESTS,
        "then fail, whatever was tried",
        least=0.1,
        most=86400,
    ),
    Option("max-connections", COUNT, _REQUESTS, "connections at once", least=1, most=1024),
    Option("retries", COUNT, _REQUESTS, "how often a request is tried again", most=1000, least=0),
    Option(
        "hedge-share",
        SHARE,
        _REQUESTS,
        "second requests for answers that are late, per request; 0: none",
        least=0,
        most=1,
    ),
    Option("foreground", FLAG, _DAEMON, "stay in front, log to stderr", short="-f"),
    Option(
        "log-level",
        TEXT,
        _DAEMON,
        "how much to log",
        choices=("debug", "info", "warning", "error"),
    ),
    Option("log-file", PATH, _DAEMON, "log there (default: syslog; with -f: stderr)"),
    Option("debug", FLAG, _DAEMON, "log every request to the file system and to S3"),
    CONFIG,
    FSNAME,
)

_BY_NAME = {option.name: option for option in OPTIONS}
_BY_NEGATED_NAME = {option.negated_name: option for option in OPTIONS if option.is_flag}

# What other S3 mounts call it. Only for "did you mean".
_ELSEWHERE = {
    "cache": "cache-dir",
    "use-cache": "cache-dir",
    "cache-ttl": "metadata-ttl",
    "max-cache-size": "cache-size",
    "dmask": "dir-mode",
    "fmask": "file-mode",
    "endpoint": "endpoint-url",
    "url": "endpoint-url",
    "force-path-style": "path-style",
    "use-path-request-style": "path-style",
    "public-bucket": "no-sign-request",
    "stat-cache-ttl": "metadata-ttl",
    "stat-cache-expire": "metadata-ttl",
    "transfer-acceleration": "accelerate",
    "mp-umask": "umask",
    "d": "debug",
    "v": "debug",
    "verbose": "debug",
}


def find(name: str, place: str) -> tuple[Option, bool] | None:
    """The option of that name in that place, and whether the name turns it off."""
    name = name.replace("_", "-")
    option, negated = _BY_NAME.get(name), False
    if option is None:
        option, negated = _BY_NEGATED_NAME.get(name), True
    if option is None or place not in option.places:
        return None
    return option, negated


def suggestion(name: str, place: str, others: tuple[str, ...] = ()) -> str | None:
    """The name, with dashes, that was probably meant: of an option, or one of `others`."""
    import difflib  # noqa: PLC0415 -- 5 ms that only a typing error should cost

    name = name.strip("-").replace("_", "-").lower()
    names = [option.name for option in OPTIONS if place in option.places]
    meant = _ELSEWHERE.get(name)
    if meant is None:
        close = difflib.get_close_matches(name, [*names, *_BY_NEGATED_NAME, *others], 1, 0.6)
        longer = [known for known in names if len(name) > 2 and known.startswith(name)]
        meant = next(iter([*close, *longer]), None)
    return meant
