"""README.md says what is so: its commands run, its output is real, its messages are said.

What is not run here is looked up: options in the parser, paths and links in the repository,
messages in the source.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from s3mount.cli import configure
from s3mount.kernel.errnos import ERRNOS
from s3mount.options import COMMAND_LINE, OPTIONS, find
from scripts import demo_tree
from tests.conftest import Bucket
from tests.fault_proxy import FaultProxy, refuse
from tests.markdown import Page
from tests.modelled import Modelled, modelled
from tests.mount.test_names import ROWS
from tests.mounting import ROOT, SENT_ONCE, Mounts, has_ended, mounts_at, processes_with
from tests.servers import Server

README = Page(ROOT / "README.md")

for_root = pytest.mark.skipif(os.geteuid() != 0, reason="the commands shown unmount with umount(8)")


# --- commands and their output ------------------------------------------------------------


class Shell:
    """Runs what README.md shows, in a home of its own, with `s3mount` on its PATH."""

    def __init__(self, home: Path, server: Server) -> None:
        self.mountpoint = home / "mnt"
        self.server = server
        program = home / "bin" / "s3mount"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -W default -m s3mount "$@"\n')
        program.chmod(0o755)
        inherited = {name: text for name, text in os.environ.items() if name[:4] != "AWS_"}
        self.environment = inherited | {
            **server.environment(),
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(home / "cache"),
        }

    def run(self, script: str) -> str:
        """What the script prints, on whatever it prints it."""
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=90,
        )
        return done.stdout

    def close(self) -> None:
        """Leave no mount and no daemon behind."""
        pids = processes_with(str(self.mountpoint))
        if mounts_at(self.mountpoint):
            subprocess.run(["umount", "-l", self.mountpoint], check=True)
        assert all(has_ended(pid, 10) for pid in pids)


@pytest.fixture
def shell(server: Server, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, server)
    yield shell
    shell.close()


def steps(transcript: str) -> list[tuple[str, list[str]]]:
    """The commands of a transcript, each with the lines of its output."""
    found: list[tuple[str, list[str]]] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def comparable(line: str) -> str:
    """A line of `ls -l` without what differs: owner, time, and what gzip makes of a file."""
    if line.startswith("total "):
        return "total"
    found = re.match(r"([-d][-rwx]{9}) +(\d+) +\S+ +\S+ +(\d+) (\w+ +\d+ +\S+) (.*)$", line)
    if found is None:
        return line
    size = "" if found[5].endswith(".gz") else found[3]
    return " ".join((found[1], found[2], size, found[5]))


@for_root
def test_the_transcript_is_real(shell: Shell, server: Server) -> None:
    bucket = Bucket(server)
    bucket.name = "acme-archive"
    server.put(bucket.name, {})
    bucket.put(dict(demo_tree.files()))
    shell.mountpoint.mkdir()
    for command, expected in steps(README.fences("console")[0]):
        output = shell.run(command.replace("/mnt/acme", str(shell.mountpoint)))
        lines = output.replace(str(shell.mountpoint), "/mnt/acme").splitlines()
        assert list(map(comparable, lines)) == list(map(comparable, expected)), command


@for_root
@pytest.mark.parametrize("heading", ["AWS", "MinIO, Ceph and other servers"])
def test_quick_start(heading: str, shell: Shell, server: Server) -> None:
    """Run as it stands, but for the server's address; with `set -e`, so that each step counts."""
    server.put("my-bucket", {"hello.txt": b"hello"})
    script = README.section(heading).fences("sh")[0]
    assert script.count("umount") == 1
    script = script.replace("http://127.0.0.1:9000", server.endpoint_url)
    if heading != "AWS":
        del shell.environment["AWS_ENDPOINT_URL_S3"]
        del shell.environment["AWS_DEFAULT_REGION"]
    assert shell.run(f"set -e\n{script}\necho done") == "hello.txt\ndone\n"
    assert mounts_at(shell.mountpoint) == []


def commands(name: str) -> list[str]:
    """The lines of the shell blocks that run `name`; a backslash joins one to the next."""
    lines = "\n".join(README.fences("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(f"{name} ")]


def test_every_command_line_of_s3mount_is_understood() -> None:
    lines = commands("s3mount")
    assert len(lines) > 5
    for line in lines:
        configure(shlex.split(line, comments=True)[1:])
    [docker] = commands("docker run")
    words = shlex.split(docker)
    configure(words[words.index("s3mount") + 1 :])


def test_the_line_of_fstab_is_understood() -> None:
    [line] = README.section("fstab").fences("")
    source, directory, kind, options, *_ = line.split()
    assert kind == "fuse.s3mount"
    assert configure([source, directory, "-o", options]).notices == ()


def test_the_system_packages_are_those_of_setup() -> None:
    [line] = re.findall(r"apt-get install (.*)", README.section("Install").text)
    script = (ROOT / "scripts/setup").read_text()
    found = re.search(r"^packages=\((.*?)\)", script, re.MULTILINE)
    assert found is not None
    assert set(line.split()) == {*found[1].split(), "python3-dev", "python3-venv"}
    assert set(line.split()) - {"fuse3"} <= set((ROOT / "Dockerfile").read_text().split())


# --- tables ---------------------------------------------------------------------------------


def test_keys_and_what_is_seen() -> None:
    """Each row is one of those that tests/mount/test_names.py mounts."""
    rows = README.section("What you will see").table()
    tested = {tuple(keys): expected for keys, expected in ROWS.values()}
    shown = 0
    for keys_cell, seen in rows:
        keys = tuple(re.findall("`(.*?)`", keys_cell))
        if not keys:  # what cannot be shown, in words
            continue
        shown += 1
        names = {path.rpartition("/")[2] for path in tested[keys]}
        assert set(re.findall("`([a-z])`", seen)) == names, keys_cell
    assert shown == 7


@pytest.fixture(scope="module")
def table() -> Iterator[Modelled]:
    objects = {f"logs/{number:04}.txt": b"a small file\n" for number in range(1000)}
    more = {"one.txt": b"1\n", "deep/er/file": b"deep\n", "big.bin": bytes(8 << 20)}
    # The page that is listed ahead of a walk answers for a directory, too, when it comes before
    # the program asks for that: as it does not where S3 takes its time.
    with modelled(objects | more, latency=0.1) as server:
        yield server


REQUESTS = README.section("Requests and money").table()


@pytest.mark.parametrize("row", REQUESTS, ids=[row[0] for row in REQUESTS])
def test_requests(row: list[str], table: Modelled, tmp_path: Path) -> None:
    """The counts are those of the last command of the row."""
    table.reset()
    with Mounts(tmp_path, table) as mount:
        mounted = mount(table.bucket, *SENT_ONCE, "--metadata-ttl", "1h", covered=False)
        what, lists, gets = row
        for command in re.findall("`(.*?)`", what):
            if not command.startswith("s3mount "):
                table.reset()
                # Some end with 1: nothing was found.
                subprocess.run(
                    ["bash", "-c", command],
                    cwd=mounted.path,
                    stdout=subprocess.DEVNULL,
                    check=False,
                )
        expected = {"LIST": int(lists), "GET": int(gets)}
        assert table.counts() == {kind: count for kind, count in expected.items() if count}


def test_the_options_shown_have_these_defaults() -> None:
    rows = README.section("Options").table()
    assert len(rows) > 8
    for shown, default, _ in rows:
        name, _, metavar = shown.strip("`").partition(" ")
        found = find(name.removeprefix("--"), COMMAND_LINE)
        assert found is not None, name
        assert metavar == ("" if found[0].is_flag else found[0].kind.metavar)
        if found[0].default and found[0].name != "log-file":
            assert default.replace("`", "") == found[0].default


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_every_option_named_exists(page: Path) -> None:
    names = {
        word for span in Page(page).spans() for word in re.findall(r"^--([a-z-]+)(?![\w-])", span)
    }
    unknown = sorted(name for name in names if find(name, COMMAND_LINE) is None)
    assert unknown == []


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs/options.md").read_text()
    names = [option.name for option in OPTIONS if COMMAND_LINE in option.places]
    assert [name for name in names if not re.search(rf"--{name}\b", text)] == []


# --- the house ------------------------------------------------------------------------------


def test_the_modules_named_exist() -> None:
    rows = README.section("How it works").table()
    room_names = set()
    for where, what in rows:
        names = re.findall("`(.*?)`", where)
        room = names[0] if names[0].endswith("/") else ""
        room_names.add(room)
        for name in [*names, *re.findall(r"`([a-z_0-9]+\.py)`", what)]:
            path = ROOT / "s3mount" / (name if name == room else room + name)
            assert path.exists(), path
    packages = {f"{path.parent.name}/" for path in (ROOT / "s3mount").glob("*/__init__.py")}
    assert packages <= room_names


# --- messages -------------------------------------------------------------------------------


def messages(heading: str) -> list[str]:
    """The first column of the table below that line of the troubleshooting section."""
    rows = README.section("Troubleshooting").table(below=heading)
    return [Page(row[0]).spans()[0].strip() for row in rows]


SAID = messages("What `s3mount` says when it cannot mount:")

# A text of fewer letters could stand for nearly any message.
LEAST_LETTERS = 7


def text_of(node: ast.AST) -> str:
    """The text that the expression makes, with "{}" for each value that is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "{}"


@cache
def texts_of_the_source() -> list[re.Pattern[str]]:
    """Every text in the source, as a pattern with `.*` where values are put in."""
    found = set()
    for path in (ROOT / "s3mount").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                parts = re.split(r"\{[^{}]*\}", text_of(node))
                if sum(map(str.isalpha, "".join(parts))) >= LEAST_LETTERS:
                    found.add(".*".join(map(re.escape, parts)))
    return list(map(re.compile, found))


def is_said(message: str) -> bool:
    """Whether the source has it as one text, or as a cause and a cure."""

    def is_text(text: str) -> bool:
        return any(pattern.fullmatch(text) for pattern in texts_of_the_source())

    cuts = [found.start() for found in re.finditer("; ", message)]
    return is_text(message) or any(
        is_text(message[:cut]) and is_text(message[cut + 2 :]) for cut in cuts
    )


@pytest.mark.parametrize("message", SAID)
def test_a_message_is_in_the_source(message: str) -> None:
    assert is_said(message)


def test_what_nobody_says_is_not_in_the_source() -> None:
    assert not is_said("a message that nobody ever wrote")
    assert not is_said("no credentials were found; check the weather")
    assert not is_said("no credentials were lost; check the name")


class Scene(NamedTuple):
    """Where messages are provoked."""

    mount: Mounts
    bucket: Bucket
    proxy: FaultProxy
    path: Path

    def say(self, *arguments: str, **environment: str) -> str:
        """What s3mount says, in the words of the README: its bucket, directories and servers."""
        done = self.mount.run(*arguments, **environment)
        assert done.returncode != 0
        text = done.stderr.removeprefix("s3mount: ").rstrip("\n")
        text = text.replace(str(self.path), "/mnt/b").replace(self.bucket.name, "my-bucket")
        text = text.replace(str(self.path.parent / "data"), "/srv/data")
        return text.replace("as the test wants it", "Access Denied")

    def refused(self, status: int, code: str) -> str:
        """What it says when S3 answers with this error."""
        self.proxy.on("*", refuse(status, code))
        return self.say(*self.arguments(self.proxy.endpoint_url))

    def arguments(self, endpoint_url: str | None = None) -> list[str]:
        """A right command line."""
        return self.mount.arguments(self.bucket.name, self.path, endpoint_url=endpoint_url)

    def occupied(self) -> str:
        """What it says of a directory where a bucket is mounted."""
        self.mount(self.bucket.name, at=self.path)
        return self.say(*self.arguments())

    def without_credentials(self) -> str:
        """What it says when there are none."""
        nothing = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
        files = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/dev/null")
        return self.say(*self.arguments(), **nothing, **files)

    def shared_cache_dir(self) -> str:
        """What it says of a cache directory that holds something else."""
        directory = self.path.parent / "data"
        directory.mkdir()
        (directory / "photo.jpg").touch()
        return self.say(*self.arguments(), "--cache-dir", str(directory))

    def missing_mountpoint(self) -> str:
        """What it says of a mountpoint that is not there."""
        self.path.rmdir()
        return self.say(*self.arguments())


PROVOKED: Mapping[str, Callable[[Scene], str]] = {
    "there is no bucket": lambda s: s.say(*s.mount.arguments("my-bukket", s.path)),
    "no credentials": Scene.without_credentials,
    "the credentials have expired": lambda s: s.refused(400, "ExpiredToken"),
    "S3 does not know": lambda s: s.refused(403, "InvalidAccessKeyId"),
    "S3 says the signature": lambda s: s.refused(403, "SignatureDoesNotMatch"),
    "S3 denies": lambda s: s.refused(403, "AccessDenied"),
    "http://127.0.0.1:9000 refuses": lambda s: s.say(*s.arguments("http://127.0.0.1:9")),
    "the host of": lambda s: s.say(*s.arguments("http://no-such-host.invalid")),
    "the mountpoint": Scene.missing_mountpoint,
    "'my-bucket' is mounted": Scene.occupied,
    "there is no option": lambda s: s.say("my-bucket", "/mnt/b", "--cach-dir", "/x"),
    "the cache directory": Scene.shared_cache_dir,
}


@pytest.mark.parametrize("begin", PROVOKED)
def test_a_message_is_said(begin: str, bucket: Bucket, mount: Mounts, tmp_path: Path) -> None:
    [message] = [message for message in SAID if message.startswith(begin)]
    bucket.put({"file": b""})
    path = tmp_path / "here"
    path.mkdir()
    with FaultProxy(bucket.server.endpoint_url) as proxy:
        said = PROVOKED[begin](Scene(mount, bucket, proxy, path))
    url = r"https?://[^\s;]+"
    assert re.sub(url, "URL", said) == re.sub(url, "URL", message)


def test_what_programs_say_is_what_the_errnos_mean() -> None:
    known = {os.strerror(number) for number in {*ERRNOS.values(), errno.ENOTCONN}}
    said = messages("What programs say later, while they read:")
    assert [message for message in said if message not in known] == []
    # Those that need no explanation.
    plain = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EBADF,
             errno.ENOSYS, errno.EINVAL, errno.EPROTO)  # fmt: skip
    assert known - set(said) == {os.strerror(number) for number in plain}
