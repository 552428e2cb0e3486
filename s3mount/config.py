"""The settings of one mount, as a plain value.

Knows no command line, environment or file: `cli.py` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


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

    # how fresh names are
    metadata_ttl: float = 60.0  # math.inf: for ever
    negative_ttl: float = 5.0

    # what is kept where
    cache_dir: Path | None = None  # None: no cache on disk
    cache_size: int = 10 * GIB
    block_size: int = MIB
    memory_limit: int = 144 * MIB

    # requests
    read_timeout: float = 10.0
    deadline: float = 60.0
    max_connections: int = 32
    retries: int = 10

    # the daemon
    foreground: bool = False
    log_level: str = "info"
    log_file: Path | None = None
    debug: bool = False
