"""Programs that walk whole filesystems are kept out by name; everybody else gets in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3mount.config import CRAWLERS
from s3mount.kernel.crawlers import KEPT, REMEMBERED, Crawlers
from tests.conftest import Bucket
from tests.mounting import SENT_ONCE, Mounts
from tests.servers import Server


def program(directory: Path, name: str) -> Path:
    """A program of that name that lists the directory it is given."""
    path = directory / name
    path.symlink_to("/bin/ls")
    return path


def ls(path: Path, directory: Path) -> tuple[int, str]:
    done = subprocess.run([path, directory], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["updatedb", "tracker-miner-fs-3", "baloo_file_extractor"])
def test_a_crawler_is_kept_out_with_one_line_in_the_log(
    bucket: Bucket, mount: Mounts, server: Server, tmp_path: Path, name: str
) -> None:
    bucket.put({"d/a": b"a"})
    mounted = mount(bucket.name, *SENT_ONCE)
    server.reset()
    crawler = program(tmp_path, name)
    for _ in range(3):
        status, said = ls(crawler, mounted.path)
        assert status == 2
        assert "Permission denied" in said
    assert server.counts() == {}
    lines = [line for line in mounted.log().splitlines() if "kept out" in line]
    assert len(lines) == 1
    assert name[:15] in lines[0]
    assert ls(program(tmp_path, "lister"), mounted.path) == (0, "d\n")


def test_a_thread_of_a_crawler_is_kept_out(bucket: Bucket, mount: Mounts, tmp_path: Path) -> None:
    """Indexers work in threads, which have names of their own."""
    bucket.put({"d/a": b"a"})
    mounted = mount(bucket.name)
    code = (
        "import os, sys, threading\n"
        "def crawl():\n"
        "    open(f'/proc/self/task/{threading.get_native_id()}/comm', 'w').write('worker')\n"
        "    try:\n"
        "        print(os.listdir(sys.argv[1]))\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
        "thread = threading.Thread(target=crawl)\nthread.start()\nthread.join()\n"
    )
    crawler = tmp_path / "baloo_file"
    crawler.write_text(f"#!{Path(sys.executable).resolve()} -I\n{code}")
    crawler.chmod(0o755)
    done = subprocess.run(
        [crawler, mounted.path], capture_output=True, text=True, check=True
    )  # the kernel names a process after its script
    assert done.stdout == "refused\n"


def test_other_names_may_be_given(bucket: Bucket, mount: Mounts, tmp_path: Path) -> None:
    bucket.put({"d/a": b"a"})
    mounted = mount(bucket.name, "-o", "keep_out=nosy:curious")
    assert ls(program(tmp_path, "nosy"), mounted.path)[0] == 2
    assert ls(program(tmp_path, "curious"), mounted.path)[0] == 2
    assert ls(program(tmp_path, "updatedb"), mounted.path) == (0, "d\n")


def test_all_may_be_let_in(bucket: Bucket, mount: Mounts, tmp_path: Path) -> None:
    bucket.put({"d/a": b"a"})
    mounted = mount(bucket.name, "--keep-out", "none")
    assert ls(program(tmp_path, "updatedb"), mounted.path) == (0, "d\n")


@pytest.mark.parametrize("value", ["", ", ,", "/usr/bin/updatedb"])
def test_what_is_no_name_is_refused(mount: Mounts, tmp_path: Path, value: str) -> None:
    done = mount.run("bucket", str(tmp_path), "--keep-out", value)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--keep-out" in done.stderr


# --- the look at a process --------------------------------------------------------------------


def proc_of(directory: Path, pid: int, name: str, tgid: int | None = None) -> None:
    """What /proc shows of a thread."""
    path = directory / str(pid)
    path.mkdir(exist_ok=True)
    (path / "comm").write_text(name + "\n")
    (path / "status").write_text(f"Name:\t{name}\nTgid:\t{tgid or pid}\n")


async def test_a_process_is_looked_at_once_a_second(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    crawlers = Crawlers(CRAWLERS, tmp_path)
    proc_of(tmp_path, 7, "bash")
    assert not crawlers.is_one(7)
    proc_of(tmp_path, 7, "updatedb.plocat")  # exec(2)
    assert not crawlers.is_one(7)
    await trio.sleep(REMEMBERED)
    assert crawlers.is_one(7)


async def test_processes_that_cannot_be_seen_get_in(tmp_path: Path) -> None:
    crawlers = Crawlers(CRAWLERS, tmp_path)
    assert not crawlers.is_one(0)
    assert not crawlers.is_one(12345)
    assert not Crawlers((), tmp_path).is_one(os.getpid())


async def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    crawlers = Crawlers(CRAWLERS, tmp_path)
    for pid in range(1, 3 * KEPT):
        crawlers.is_one(pid)
    assert len(crawlers._known) <= KEPT
