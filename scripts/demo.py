"""The demo: fill an S3 server, mount the bucket, use it as people do, compare every byte.

Each command runs twice, in the mounted tree and in the originals: the output shown is the
mount's, and it must be the originals' too. What a command cost in requests is what the
server counted. Exits 1 when anything differs, and unmounts in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts import demo_tree
from tests.servers import REGION, Server

BUCKET = "acme-archive"
SHOWN_LINES = 6
COMMAND_SECONDS = 120
ENDING_SECONDS = 10
GREP = "grep -r ' 503 ' logs --include='*.log'"


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@contextmanager
def s3_server(work: Path, *, keep: bool) -> Iterator[Server]:
    """An empty S3 on a free port; `keep` leaves it running unless the demo fails."""
    # It ends when its standard input does. A FIFO that it holds open itself never does.
    fifo = work / "server-stdin"
    os.mkfifo(fifo)
    stdin = os.open(fifo, os.O_RDWR)
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parent.parent / "tests" / "moto_server.py"],
        stdin=stdin,
        stdout=subprocess.PIPE,
        # What stays may not hold the terminal, or the pipe of `scripts/demo --keep | less`.
        stderr=subprocess.DEVNULL if keep else None,
        start_new_session=keep,
    )
    os.close(stdin)
    assert process.stdout is not None
    try:
        with process.stdout:
            line = process.stdout.readline()
        if not line:
            raise DemoError(f"the S3 server did not start: exit status {process.wait()}")
        yield Server(f"http://127.0.0.1:{json.loads(line)['port']}", process)
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            process.kill()
            process.wait()


def fill(server: Server, originals: Path, paths: list[str]) -> None:
    """Put every file of `originals` into the bucket, under its path."""
    server.put(BUCKET, {path: (originals / path).read_bytes() for path in paths})
    server.client.close()


@dataclass
class Demo:
    """What runs where, and what was found to differ."""

    server: Server
    work: Path
    mountpoint: Path
    originals: Path
    environment: dict[str, str]
    checks: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, good: bool, failure: str) -> None:
        """Count one check; say it when it failed."""
        self.checks += 1
        if not good:
            self.failures.append(failure)
            print(f"  !! {failure}")

    def run(self, command: str, where: Path) -> subprocess.CompletedProcess[str]:
        """Run a shell command; a pipe fails when any part of it does."""
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=where,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="surrogateescape",
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def show(self, command: str, where: Path) -> str:
        """Run and show a command, with the time and the requests it took."""
        print(f"\n$ {command}", flush=True)
        self.server.reset()
        started = time.monotonic()
        result = self.run(command, where)
        seconds = time.monotonic() - started
        counts = self.server.counts()
        lines = result.stdout.splitlines()
        for line in lines[:SHOWN_LINES]:
            print(line.encode("utf-8", "backslashreplace").decode())
        if len(lines) > SHOWN_LINES:
            print(f"... ({len(lines) - SHOWN_LINES:,} more lines)")
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
        print(f"  [{seconds:.2f} s, requests: {kinds or 0}]", flush=True)
        self.check(result.returncode == 0, f"exit status {result.returncode}: {command}")
        return result.stdout

    def same(self, command: str) -> None:
        """Show a command in the mount; in the originals it must print the same."""
        output = self.show(command, self.mountpoint)
        expected = self.run(command, self.originals).stdout
        self.check(output == expected, f"the originals give something else: {command}")

    def mount(self) -> None:
        """Mount the bucket, as a user would."""
        command = (
            f"s3mount {BUCKET} mnt --endpoint-url {self.server.endpoint_url} --path-style"
            f" --region {REGION} --cache-dir cache --metadata-ttl 5m"
        )
        output = self.show(command, self.work)
        if not self.is_mounted():
            raise DemoError(f"the bucket is not mounted: {output.strip() or 'no message'}")
        self.check(output == "", "s3mount has something to say, though all is well")

    def is_mounted(self) -> bool:
        """Whether the mountpoint is one; a dead one is."""
        return any(line.split()[1] == str(self.mountpoint) for line in mounts())

    def use(self) -> None:
        """The commands."""
        print("\n$ cd mnt")
        self.show("ls -l", self.mountpoint)
        self.show("ls -l logs", self.mountpoint)
        self.same("find . -print0 | sort -z | tr '\\0\\n' '\\n?' | md5sum")
        self.same("find . | wc -l")
        self.same(GREP + " | sort")
        self.same("zcat logs/*.gz | grep -c ' 404 '")
        self.same("head -n 3 data/orders.csv")
        self.same("tail -c 110 data/orders.csv")
        self.same("cat names/*.txt ./names/-rf names/empty")
        self.same("cut -d, -f4 data/orders.csv | sort | uniq -c | sort -rn")
        self.same("sha256sum -c ../SHA256SUMS")
        self.show("cp -r backup site ..", self.mountpoint)
        for name in ("backup", "site"):
            command = f"diff -r {name} originals/{name}"
            self.check(self.run(command, self.work).returncode == 0, command)
        self.show("df -h .", self.mountpoint)
        self.grep_again()

    def grep_again(self) -> None:
        """What was read once costs nothing to read again."""
        print("\nThe same grep once more, from what is known and cached by now:")
        self.same(GREP + " | sort")
        number = self.server.counts().total()
        self.check(number == 0, f"the second grep took {number} requests, not 0")

    def unmount(self) -> None:
        """Unmount, and see that nothing is left behind."""
        umount = "umount" if os.geteuid() == 0 else "fusermount3 -u"
        self.show(f"{umount} mnt", self.work)
        self.check(not self.is_mounted(), "the mountpoint is still mounted")
        deadline = time.monotonic() + ENDING_SECONDS
        while (daemons := self.daemons()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.check(not daemons, f"s3mount still runs after the unmount: {daemons}")

    def daemons(self) -> list[int]:
        """The processes that were given this server's URL: s3mount, and no other."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = path.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if self.server.endpoint_url.encode() in arguments:
                found.append(int(path.parent.name))
        return found

    def clear_away(self) -> None:
        """Leave no mount behind, whatever happened."""
        if self.is_mounted():
            lazy = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*lazy, self.mountpoint], check=False)


def mounts() -> list[str]:
    """The lines of /proc/mounts."""
    return Path("/proc/mounts").read_text().splitlines()


def environment(server: Server) -> dict[str, str]:
    """The user's, with the demo's credentials and s3mount's place, and no profile of theirs."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    of_server = server.environment()
    # The endpoint is shown on the command line.
    del of_server["AWS_ENDPOINT_URL_S3"]
    return mine | {
        **of_server,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{mine.get('PATH', os.defpath)}",
    }


def prepare(server: Server, work: Path) -> Demo:
    """Write the originals, fill the bucket."""
    originals, mountpoint = work / "originals", work / "mnt"
    mountpoint.mkdir()
    paths = demo_tree.write(originals)
    fill(server, originals, paths)
    demo = Demo(server, work, mountpoint, originals, environment(server))
    sums = demo.run("find . -type f -print0 | sort -z | xargs -0 sha256sum", originals)
    (work / "SHA256SUMS").write_text(sums.stdout)
    total = sum((originals / path).stat().st_size for path in paths)
    print(
        f"An S3 server listens on {server.endpoint_url}; its bucket {BUCKET} holds"
        f" {len(paths)} objects, {total / 1e6:.0f} MB."
    )
    return demo


def how_to_end(demo: Demo) -> str:
    """What --keep leaves, and how to be rid of it."""
    assert demo.server.process is not None
    umount = "umount" if os.geteuid() == 0 else "fusermount3 -u"
    return (
        f"\nThe bucket stays mounted on {demo.mountpoint}\n"
        f"(its S3 server is process {demo.server.process.pid}). To end it:\n\n"
        f"    {umount} {demo.mountpoint} && kill {demo.server.process.pid} && rm -r {demo.work}\n"
    )


def play(work: Path, *, keep: bool) -> Demo:
    """The whole demo, in `work`."""
    with s3_server(work, keep=keep) as server:
        demo = prepare(server, work)
        try:
            demo.mount()
            demo.use()
            if keep:
                print(how_to_end(demo))
            else:
                demo.unmount()
        except BaseException:
            demo.clear_away()
            raise
        if not keep:
            demo.clear_away()
        return demo


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show what s3mount does.")
    parser.add_argument("--keep", action="store_true", help="leave the bucket mounted at the end")
    keep = parser.parse_args().keep
    work = Path(tempfile.mkdtemp(prefix="s3mount-demo-")).resolve()
    started = time.monotonic()
    kept = False
    try:
        demo = play(work, keep=keep)
        kept = keep
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the bucket is unmounted.", file=sys.stderr)
        return 130
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)
    if demo.failures:
        print(f"\n{len(demo.failures)} of {demo.checks} checks FAILED:", file=sys.stderr)
        print(*demo.failures, sep="\n", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    print(f"\nAll {demo.checks} checks passed in {seconds:.0f} s: every byte is the original's.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
