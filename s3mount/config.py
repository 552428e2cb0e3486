"""The settings of one mount, as a plain value.

Knows no command line, environment or file: `cli.py` fills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3mount.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# Programs that index whole filesystems, by the names that their processes have.
CRAWLERS = (
    *("updatedb", "updatedb.mlocate", "updatedb.plocate", "updatedb.findutils"),  # locate(1)
    *("plocate-build", "mlocate"),
    *("tracker-miner-fs", "tracker-miner-fs-3", "tracker-extract", "tracker-extract-3"),  # GNOME
    *("localsearch-3", "localsearch-extractor-3"),  # what GNOME calls them since 2024
    *("baloo_file", "baloo_file_extractor"),  # KDE
    "recollindex",
)


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes in bytes, times in seconds, modes as `int`. None: found out at the mount."""

    source: str  # as the user wrote it: what `mount` and /proc/mounts show
    bucket: str  # a name, an access-point ARN or an alias
    prefix: str  # "" or a key prefix that ends with "/"
    mountpoint: Path

    # the S3 service
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    no_sign_request: bool = False
    requester_pays: bool = False
    path_style: bool = False
    dualstack: bool = False
    fips: bool = False
    accelerate: bool = False
    ca_bundle: Path | None = None
    expected_bucket_owner: str | None = None

    # what files look like
    read_only: bool = True
    uid: int | None = None
    gid: int | None = None
    file_mode: int | None = None
    dir_mode: int | None = None
    umask: int | None = None
    allow_other: bool = False
    allow_root: bool = False
    mount_options: tuple[str, ...] = ()  # passed on to the kernel: nodev, nosuid, noexec, ...

    keep_out: tuple[str, ...] = CRAWLERS  # programs that may not list directories

    # how fresh names are
    metadata_ttl: float = 60.0  # math.inf: for ever
    negative_ttl: float = 5.0
    persist_metadata: bool = False

    # what is kept where
    cache_dir: Path | None = None  # None: no cache on disk
    cache_size: int = 10 * GIB
    block_size: int = MIB
    memory_limit: int = 144 * MIB
    readahead_files: int = 64

    # requests
    read_timeout: float = 10.0
    deadline: float = 60.0
    max_connections: int = 64
    retries: int = 10
    hedge_share: float = 0.1  # second requests for late answers, per request; 0: none at all

    # the daemon
    foreground: bool = False
    log_level: str = "info"
    log_file: Path | None = None
    debug: bool = False


# A block that is read, the one after it, and room for a second reader.
MIN_BLOCKS = 4


def spare(deadline: float) -> float:
    """Of a deadline, the seconds that no request is given.

    An operation that waits for a request, and those that wait in the kernel for that operation,
    need them to end within the deadline, too.
    """
    return min(1.5, deadline / 5)


def check(config: Config) -> None:
    """Raise `UsageError` for settings that are right each, and wrong together."""
    for first, second, clash, cure in _clashes(config):
        if clash:
            raise UsageError(f"--{first} does not go with --{second}", cure)
    least = MIN_BLOCKS * config.block_size
    for name, size in (("memory-limit", config.memory_limit), ("cache-size", config.cache_size)):
        if size < least and not (name == "cache-size" and config.cache_dir is None):
            raise UsageError(
                f"--{name} holds fewer than {MIN_BLOCKS} blocks of --block-size",
                "raise the one or lower the other",
            )


def _clashes(config: Config) -> Iterator[tuple[str, str, bool, str]]:
    """Two options, whether both are given and exclude each other, and the cure."""
    yield (
        "allow-other",
        "allow-root",
        config.allow_other and config.allow_root,
        "leave out --allow-root: root is among all users",
    )
    yield (
        "persist-metadata",
        "cache-dir none",
        config.persist_metadata and config.cache_dir is None,
        "give --cache-dir a directory: names are kept there",
    )
    # botocore 1.44 passes over the first two without a word, and refuses the third.
    for name, given in (
        ("dualstack", config.dualstack),
        ("fips", config.fips),
        ("accelerate", config.accelerate),
    ):
        cure = f"leave out --{name}: it chooses among the endpoints of AWS"
        yield name, "endpoint-url", given and config.endpoint_url is not None, cure
    yield (
        "accelerate",
        "fips",
        config.accelerate and config.fips,
        "leave out one of them: AWS has no such endpoint",
    )
    yield (
        "accelerate",
        "path-style",
        config.accelerate and config.path_style,
        "leave out --path-style: acceleration takes the bucket from the host name",
    )
    yield (
        "no-sign-request",
        "requester-pays",
        config.no_sign_request and config.requester_pays,
        "leave out --no-sign-request: who pays must be known",
    )
