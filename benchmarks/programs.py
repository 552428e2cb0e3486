"""The mount programs, each with the best settings known for it: a table to add others to.

A program is run in the foreground, so that its process is known; how it is mounted, watched and
ended is in `mounting.py`.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "AKIAMODELLEDS3BENCH0", "modelled-secret"  # accepted unchecked
CACHE_MIB = 10 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be mounted where."""

    endpoint_url: str
    bucket: str
    mountpoint: Path
    cache_dir: Path
    """Empty, and on local disk."""
    ca_path: Path | None
    """The CA behind an https endpoint."""
    disk_cache: bool
    """Turn on the program's disk cache, where that is not its default."""
    options: tuple[str, ...] = ()
    """More of them, for s3mount."""


@dataclass(frozen=True, slots=True)
class Program:
    """A mount program: where its binary is, and its command line in the foreground."""

    name: str
    variable: str
    """The environment variable that names the binary."""
    command: Callable[[Target], list[str]]
    """Arguments after the binary."""
    package: str | None = None
    """The binary's name on PATH; None: only the variable names it."""
    environment: Callable[[Target], Mapping[str, str]] = lambda _: {}
    has_disk_cache: bool = True
    """Whether rows about the disk cache make sense."""

    def version(self) -> str:
        """What the binary says of itself: "1.24.0"; empty if it says nothing of the kind."""
        binary = self.find()
        if binary is None:
            return ""
        asked = "version" if self.package == "rclone" else "--version"
        done = subprocess.run([binary, asked], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found.group() if found else ""

    def find(self) -> str | None:
        """The path of the binary, or None if it is not there."""
        named = os.environ.get(self.variable)
        if named:
            return shutil.which(named)
        if self.package is None:
            return None
        beside = Path(sys.executable).parent / self.package
        return str(beside) if beside.exists() else shutil.which(self.package)


def _s3mount(target: Target) -> list[str]:
    return [
        *(target.bucket, str(target.mountpoint), "-f", "--endpoint-url", target.endpoint_url),
        *("--path-style", "--region", REGION),
        *("--cache-dir", str(target.cache_dir), "--cache-size", f"{CACHE_MIB // 1024}G"),
        *(("--ca-bundle", str(target.ca_path)) if target.ca_path else ()),
        *target.options,
    ]


def _s3fs(target: Target) -> list[str]:
    options = [
        f"url={target.endpoint_url}",
        "use_path_request_style",
        f"endpoint={REGION}",
        # Its defaults are 5 and 20: more in flight helps both streams and listings.
        "parallel_count=20",
        "multireq_max=100",
        "multipart_size=16",
        "max_stat_cache_size=2000000",
        "stat_cache_expire=3600",
        "enable_noobj_cache",
        "listobjectsv2",
        "kernel_cache",
        f"tmpdir={target.cache_dir}",
    ]
    if target.disk_cache:
        options.append(f"use_cache={target.cache_dir}")
    if target.ca_path:
        options.append("ssl_verify_hostname=0")
    return [target.bucket, str(target.mountpoint), "-f", "-o", ",".join(options)]


def _s3fs_environment(target: Target) -> dict[str, str]:
    return {"CURL_CA_BUNDLE": str(target.ca_path)} if target.ca_path else {}


@functools.cache
def _rclone_streams() -> tuple[str, ...]:
    """Since 1.68 rclone reads one file over several connections, if told to."""
    binary = PROGRAMS["rclone"].find()
    if binary is None:
        return ()
    described = subprocess.run([binary, "mount", "--help"], capture_output=True, check=False)
    if b"--vfs-read-chunk-streams" not in described.stdout:
        return ()
    return ("--vfs-read-chunk-streams", "16", "--vfs-read-chunk-size", "8M")


def _rclone(target: Target, mode: str, *more: str) -> list[str]:
    remote = (
        f":s3,provider=Other,env_auth=true,region={REGION},list_version=2,no_check_bucket=true,"
        f'no_head=true,force_path_style=true,endpoint="{target.endpoint_url}":{target.bucket}'
    )
    return [
        *("mount", remote, str(target.mountpoint), "--config", "/dev/null"),
        *("--vfs-cache-mode", mode, "--cache-dir", str(target.cache_dir)),
        # Without these every name in `ls -l` is a HEAD.
        *("--use-server-modtime", "--vfs-fast-fingerprint", "--no-checksum"),
        *("--dir-cache-time", "1h", "--attr-timeout", "1h", "--poll-interval", "0"),
        *("--max-read-ahead", "1M", "--checkers", "32", *more, *_rclone_streams()),
        *(("--ca-cert", str(target.ca_path)) if target.ca_path else ()),
    ]


def _rclone_off(target: Target) -> list[str]:
    return _rclone(target, "off", "--buffer-size", "64M", "--vfs-read-chunk-size", "128M")


def _rclone_full(target: Target) -> list[str]:
    return _rclone(
        target,
        "full",
        *("--vfs-read-ahead", "128M", "--buffer-size", "16M", "--vfs-read-chunk-size", "128M"),
        *("--vfs-cache-max-size", f"{CACHE_MIB}M"),
    )


def _mountpoint_s3(target: Target) -> list[str]:
    return [
        *(target.bucket, str(target.mountpoint), "-f", "--endpoint-url", target.endpoint_url),
        *("--force-path-style", "--region", REGION, "--read-only"),
        *("--maximum-throughput-gbps", "10"),
        *("--metadata-ttl", "3600", "--negative-metadata-ttl", "3600"),
        *(
            ("--cache", str(target.cache_dir), "--max-cache-size", str(CACHE_MIB))
            if target.disk_cache
            else ()
        ),
        *(("--ca-bundle", str(target.ca_path)) if target.ca_path else ()),
    ]


def _goofys(target: Target) -> list[str]:
    return [
        *("-f", "--endpoint", target.endpoint_url, "--region", REGION),
        *("--stat-cache-ttl", "1h", "--type-cache-ttl", "1h"),
        *(target.bucket, str(target.mountpoint)),
    ]


def _geesefs(target: Target) -> list[str]:
    return [
        *("-f", "--endpoint", target.endpoint_url, "--region", REGION),
        *("--stat-cache-ttl", "1h", "--list-type", "2", "--no-checksum", "--disable-xattr"),
        *("--no-specials", "--no-expire-multipart", "--memory-limit", "2000"),
        *("--entry-limit", "2000000"),
        *(("--cache", str(target.cache_dir)) if target.disk_cache else ()),
        *(target.bucket, str(target.mountpoint)),
    ]


def _go_environment(target: Target) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(target.ca_path)} if target.ca_path else {}


PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program("s3mount", "S3MOUNT", _s3mount, "s3mount"),
        Program("s3fs", "S3FS", _s3fs, "s3fs", _s3fs_environment),
        Program("rclone", "RCLONE", _rclone_off, "rclone", has_disk_cache=False),
        Program("rclone-full", "RCLONE", _rclone_full, "rclone"),
        Program("mountpoint-s3", "MOUNT_S3", _mountpoint_s3),
        Program("goofys", "GOOFYS", _goofys, None, _go_environment, has_disk_cache=False),
        Program("geesefs", "GEESEFS", _geesefs, None, _go_environment),
    )
}
