"""--persist-metadata: the next mount goes on with what this one knew."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mounting import SENT_ONCE, Mounted, Mounts, has_ended, until
from tests.servers import Server

HOUR = ("--metadata-ttl", "1h", "--negative-ttl", "1h", *SENT_ONCE)
PERSIST = ("--persist-metadata", *HOUR)
FOREVER = (
    "--persist-metadata", "--metadata-ttl", "forever", "--negative-ttl", "forever", *SENT_ONCE
)  # fmt: skip
KEYS = [f"d{d}/e{e}/f{f}" for d in range(4) for e in range(3) for f in range(5)]
ONE_LIST = {"LIST": 1}


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    bucket.put({key: key.encode() for key in [*KEYS, "top", "d1/"]})
    return bucket


def walk(mounted: Mounted) -> str:
    """What `ls -lR` shows of the mount, without the times of directories, which are the mount's."""
    done = subprocess.run(
        ["ls", "-lR", "--time-style=full-iso", "."],
        cwd=mounted.path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return "\n".join(line for line in done.stdout.splitlines() if line[:1] != "d")


def rows(tmp_path: Path) -> int:
    """How many stretches of directories are kept."""
    with closing(sqlite3.connect(tmp_path / "cache/names.db")) as database:
        found: int = database.execute("SELECT count(*) FROM stretch").fetchone()[0]
    return found


def shift(tmp_path: Path, seconds: float) -> None:
    """Have all that is kept be learned so much later, as if the clock were set back by that."""
    with closing(sqlite3.connect(tmp_path / "cache/names.db")) as database:
        database.execute("UPDATE source SET saved = saved + ?", (seconds,))
        database.commit()


def test_the_next_mount_knows_all_that_the_last_one_knew(
    filled: Bucket, mount: Mounts, server: Server
) -> None:
    first = mount(filled.name, *PERSIST)
    shown = walk(first)
    assert not (first.path / "d1/missing").exists()
    first.unmount()
    server.reset()
    second = mount(filled.name, *PERSIST)
    assert walk(second) == shown
    assert not (second.path / "d1/missing").exists()
    assert (second.path / "d1/e1/f1").stat().st_size == len("d1/e1/f1")
    assert server.counts() == ONE_LIST
    assert (second.path / "d1/e1/f1").read_text() == "d1/e1/f1"


def test_without_it_every_mount_begins_anew(
    filled: Bucket, mount: Mounts, server: Server, tmp_path: Path
) -> None:
    for _ in range(2):
        mounted = mount(filled.name, *HOUR)
        walk(mounted)
        assert server.counts()["LIST"] > 1
        mounted.unmount()
        server.reset()
    assert not (tmp_path / "cache/names.db").exists()


def test_what_is_older_than_its_ttl_is_asked_anew(
    filled: Bucket, mount: Mounts, tmp_path: Path
) -> None:
    first = mount(filled.name, *PERSIST)
    walk(first)
    first.unmount()
    filled.put({"d1/e1/f1": b"another version", "d2/new": b""})
    filled.delete("d3/e0/f0")
    shift(tmp_path, -3600)
    shown = walk(mount(filled.name, *PERSIST))
    assert shown == walk(mount(filled.name, *HOUR, cache=None))
    assert "new" in shown


def test_forever_is_for_ever(filled: Bucket, mount: Mounts, server: Server, tmp_path: Path) -> None:
    first = mount(filled.name, *FOREVER)
    shown = walk(first)
    first.unmount()
    # As if it had been a year ago.
    shift(tmp_path, -365 * 86400)
    server.reset()
    assert walk(mount(filled.name, *FOREVER)) == shown
    assert server.counts() == ONE_LIST


def test_a_clock_that_was_set_back_makes_nothing_fresh(
    filled: Bucket, mount: Mounts, server: Server, tmp_path: Path
) -> None:
    first = mount(filled.name, *PERSIST)
    walk(first)
    first.unmount()
    shift(tmp_path, 60)
    filled.put({"d1/e1/f1": b"another version"})
    second = mount(filled.name, *PERSIST)
    second.expect("the clock was set back")
    assert (second.path / "d1/e1/f1").stat().st_size == len("another version")
    second.unmount()
    # And what was learned since is kept as ever.
    third = mount(filled.name, *PERSIST)
    server.reset()
    assert (third.path / "d1/e1/f1").stat().st_size == len("another version")
    assert server.counts() == {}


def test_a_mount_that_is_killed_loses_only_the_last_part(
    filled: Bucket, mount: Mounts, server: Server, tmp_path: Path
) -> None:
    first = mount(filled.name, *PERSIST)
    shown = walk(first)
    until(lambda: rows(tmp_path) >= 4 * (1 + 3) + 1, "names are written", 30)
    os.kill(first.pid, signal.SIGKILL)
    assert has_ended(first.pid, 20)
    subprocess.run(["umount", "-l", first.path], check=True)
    server.reset()
    assert walk(mount(filled.name, *PERSIST)) == shown
    assert server.counts() == ONE_LIST


def flip(path: Path) -> None:
    """Change every stretch by one bit, as a bad disk might."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT rowid, data FROM stretch").fetchall()
        for rowid, data in rows:
            changed = data[:-1] + bytes([data[-1] ^ 1])
            database.execute("UPDATE stretch SET data = ? WHERE rowid = ?", (changed, rowid))
        database.commit()


def other_table(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (a, b)")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"no database" * 1000), id="foreign"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="truncated"),
        pytest.param(flip, id="bits flipped"),
        pytest.param(other_table, id="another program's"),
    ],
)
def test_a_damaged_file_is_one_warning_and_a_cold_start(
    filled: Bucket, mount: Mounts, server: Server, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    first = mount(filled.name, *PERSIST)
    shown = walk(first)
    first.unmount()
    damage(tmp_path / "cache/names.db")
    second = mount(filled.name, *PERSIST, says=".*names of the last mount [^\n]*")
    assert walk(second) == shown
    second.unmount()
    assert second.log().count("WARNING") == 1
    # The new one is good.
    server.reset()
    assert walk(mount(filled.name, *PERSIST)) == shown
    assert server.counts() == ONE_LIST


def test_another_bucket_prefix_or_account_is_another_world(
    filled: Bucket, mount: Mounts, server: Server
) -> None:
    other = Bucket(server)
    other.put({"d1/e1/f1": b"of the other"})
    first = mount(filled.name, *PERSIST)
    walk(first)
    first.unmount()
    for source, path in ((other.name, "d1/e1/f1"), (f"{other.name}/d1", "e1/f1")):
        mounted = mount(source, *PERSIST)
        server.reset()
        assert (mounted.path / path).stat().st_size == len("of the other")
        mounted.unmount()
    anonymous = mount(filled.name, *PERSIST, "--no-sign-request")
    server.reset()
    walk(anonymous)
    assert server.counts()["LIST"] > 0


def test_two_mounts_of_the_same_keep_their_names_side_by_side(
    filled: Bucket, mount: Mounts, server: Server
) -> None:
    first, second = mount(filled.name, *PERSIST), mount(filled.name, *PERSIST)
    assert len(os.listdir(first.path / "d1/e1")) == 5
    assert len(os.listdir(second.path / "d2/e2")) == 5
    first.unmount()
    second.unmount()
    third = mount(filled.name, *PERSIST)
    server.reset()
    assert len(os.listdir(third.path / "d1/e1")) == len(os.listdir(third.path / "d2/e2")) == 5
    assert server.counts() == {}


def test_what_changed_while_it_was_mounted_is_kept_as_it_is_now(
    filled: Bucket, mount: Mounts, server: Server
) -> None:
    first = mount(filled.name, *FOREVER)
    first.expect("was (replaced|deleted)")
    walk(first)
    first.unmount()
    second = mount(filled.name, *FOREVER)
    second.expect("was (replaced|deleted)")
    filled.put({"d1/e1/f1": b"another version"})
    filled.delete("d2/e2/f2")
    # The old versions are asked for, are not there, and the names are looked up again.
    assert (second.path / "d1/e1/f1").read_bytes() == b"another version"
    with pytest.raises(OSError, match=r"Stale|No such file"):
        (second.path / "d2/e2/f2").read_bytes()
    assert not (second.path / "d2/e2/f2").exists()
    second.unmount()
    third = mount(filled.name, *FOREVER)
    server.reset()
    assert (third.path / "d1/e1/f1").stat().st_size == len(b"another version")
    assert not (third.path / "d2/e2/f2").exists()
    assert server.counts() == {}


def test_a_full_disk_is_one_warning(filled: Bucket, mount: Mounts, tmp_path: Path) -> None:
    small = tmp_path / "cache"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", small], check=True)
    try:
        mounted = mount(filled.name, *PERSIST)
        mounted.expect("names cannot be kept .* disk")
        (small / "ff").mkdir()
        with pytest.raises(OSError, match="No space left"):
            (small / "ff/filler").write_bytes(bytes(1 << 20))
        assert "./d1/e1" in walk(mounted)
        until(lambda: "names cannot be kept" in mounted.log(), "they are tried to be written")
        mounted.unmount()
        assert mounted.log().count("names cannot be kept") == 1
    finally:
        subprocess.run(["umount", "-l", small], check=True)
