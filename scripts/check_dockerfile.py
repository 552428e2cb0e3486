"""Runs the Dockerfile's steps one by one where no Docker engine is, then mounts a bucket.

What differs from `docker build`:

- `FROM debian:SUITE-slim` is `debootstrap --variant=minbase SUITE`: the same packages, with
  their documentation, and without the image's own apt settings.
- Steps run in a chroot with this machine's network, not in a container.
- They are lent this machine's resolv.conf and CA certificates (PIP_CERT): it may stand behind
  a proxy of its own.

An instruction that this script does not know is an error, not a step left out.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import REGION, moto_server

ROOT = Path(__file__).parent.parent
MIRROR = "http://deb.debian.org/debian"
CA_IN_CHROOT = "run/lent-ca-certificates.crt"
CONTENT = b"read through the image\n"

# $1 is the stage's root. A mount namespace of its own: nothing is left mounted behind.
CHROOT = """
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && mount --bind /sys "$1/sys" &&
exec chroot "$1" /bin/sh -c "$2"
"""
# Mount in front, as the container does, until the file has been read.
MOUNT = """
mkdir -p /mnt/bucket
{entrypoint} bucket /mnt/bucket --endpoint-url {url} --path-style --region {region} &
tries=0
until mountpoint -q /mnt/bucket; do
    kill -0 $! && tries=$((tries + 1)) && test $tries -lt 300 || exit 1
    sleep 0.1
done
cat /mnt/bucket/hello.txt
kill -TERM $! && wait $!
"""


class CheckError(Exception):
    """The Dockerfile cannot be checked, or does not work; the text says why."""


@dataclass
class Stage:
    """One FROM and what follows: its root directory, and what the steps set."""

    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)

    def run(self, command: str, **more: str) -> bytes:
        """Run a shell command in the stage; returns its output."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        environment |= {"PIP_CERT": f"/{CA_IN_CHROOT}"} | self.environment | more
        script = f"cd {shlex.quote(self.workdir)} && {{ {command}\n}}"
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", CHROOT, "sh", self.root, script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if result.returncode:
            output = (result.stdout + result.stderr).decode(errors="replace")
            raise CheckError(f"exit status {result.returncode}:\n{output[-3000:]}")
        return result.stdout


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, rest) of each instruction, comments dropped and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest) for name, rest in split]


def base(suite: str, work: Path) -> Path:
    """A minimal Debian, made once."""
    root = work / f"base-{suite}"
    if not root.exists():
        log = work / "debootstrap.log"
        with log.open("wb") as out:
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", suite, root, MIRROR],
                stdout=out,
                stderr=out,
                check=False,
            )
        if done.returncode:
            raise CheckError(f"debootstrap failed:\n{log.read_text()[-3000:]}")
    return root


def begin(rest: str, work: Path, number: int) -> tuple[str, Stage]:
    """FROM: a stage of its own, and its name."""
    match = re.fullmatch(r"debian:(\w+)-slim(?: AS (\w+))?", rest, re.IGNORECASE)
    if not match:
        raise CheckError("only FROM debian:SUITE-slim [AS NAME] can be checked")
    root = work / f"stage-{number}"
    subprocess.run(["cp", "-a", base(match[1], work), root], check=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "etc/mtab").symlink_to("/proc/mounts")  # as the engine does
    ca_file = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().openssl_cafile
    shutil.copy(ca_file, root / CA_IN_CHROOT)
    return match[2] or str(number), Stage(root)


def is_ignored(source: str) -> bool:
    """Whether .dockerignore keeps `source` from the build; the last pattern that fits counts."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#"):
            parts = [source, source.split("/", maxsplit=1)[0]]
            if any(fnmatch.fnmatchcase(part, pattern) for part in parts):
                ignored = not line.startswith("!")
    return ignored


def copy(rest: str, stage: Stage, stages: dict[str, Stage]) -> None:
    """COPY [--from=STAGE] SOURCE... TARGET."""
    *sources, target = shlex.split(rest)
    origin = ROOT
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).removeprefix("--from=")].root
    elif ignored := [source for source in sources if is_ignored(source)]:
        raise CheckError(f".dockerignore leaves out {', '.join(ignored)}")
    # "requirements/" names a directory to copy into, "s3mount" what the copy is called.
    destination = stage.root / os.path.join(stage.workdir, target).lstrip("/")
    for source in sources:
        path = origin / source.lstrip("/")
        into = destination / path.name if target.endswith(("/", ".")) else destination
        into.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            ignore = shutil.ignore_patterns("__pycache__") if origin is ROOT else None
            shutil.copytree(path, into, symlinks=True, ignore=ignore)
        else:
            shutil.copy2(path, into)


def build(work: Path) -> Stage:
    """Run every instruction; returns the last stage, which is the image."""
    stages: dict[str, Stage] = {}
    stage = None
    for name, rest in instructions((ROOT / "Dockerfile").read_text()):
        print(f"{name} {rest}", flush=True)
        if name == "FROM":
            stage_name, stage = begin(rest, work, len(stages))
            stages[stage_name] = stage
        elif stage is None:
            raise CheckError(f"{name} before the first FROM")
        elif name == "RUN":
            stage.run(rest)
        elif name == "COPY":
            copy(rest, stage, stages)
        elif name == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        else:
            raise CheckError(f"this script does not know {name}")
    if stage is None:
        raise CheckError("no FROM")
    return stage


def try_out(image: Stage) -> None:
    """The image's command answers, mounts and ends by SIGTERM."""
    entrypoint = shlex.join(image.entrypoint)
    print("==", image.run(f"{entrypoint} --version").decode().strip())
    with moto_server() as server:
        server.put("bucket", {"hello.txt": CONTENT})
        command = MOUNT.format(entrypoint=entrypoint, url=server.endpoint_url, region=REGION)
        credentials = server.environment()
        del credentials["AWS_ENDPOINT_URL_S3"]
        read = image.run(command, **credentials)
    if read != CONTENT:
        raise CheckError(f"the mount gives {read!r}, not {CONTENT!r}")
    print("== mounted a bucket, read from it, ended")


def megabytes(directory: Path) -> int:
    """What `directory` takes on disk."""
    done = subprocess.run(["du", "-sm", directory], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def main() -> int:
    """Returns the exit status."""
    if os.geteuid() != 0:
        print("scripts/check-dockerfile: needs root, for chroot and mount", file=sys.stderr)
        return 1
    work = Path(tempfile.mkdtemp(prefix="s3mount-docker-"))
    try:
        image = build(work)
        try_out(image)
        # Not the image's size: a slim base is smaller than what debootstrap makes.
        added = megabytes(image.root) - min(map(megabytes, work.glob("base-*")))
        print(f"== the last stage adds {added} MB to its base")
    except CheckError as error:
        print(f"scripts/check-dockerfile: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
