"""systemd/: the unit is valid, and what it starts tells systemd the truth.

A real notify socket listens to the very command of the unit, mounting from a real server.
"""

from __future__ import annotations

import configparser
import errno
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3mount import configfile
from s3mount.cli import configure
from tests.servers import Server, moto_server

SYSTEMD = Path(__file__).parent.parent / "systemd"
UNIT = SYSTEMD / "s3mount@.service"
COMMAND = Path(sys.executable).with_name("s3mount")
SECONDS = 60

# The settings that give a service a mount namespace of its own, or a user other than root.
NAMESPACED = {
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "InaccessiblePaths",
    "MountFlags",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "TemporaryFileSystem",
}


class RepeatedKeys(configparser.RawConfigParser):
    """A unit file; its keys keep their case."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit() -> configparser.RawConfigParser:
    parser = RepeatedKeys()
    parser.read_string(UNIT.read_text())
    return parser


# --- the files ------------------------------------------------------------------------


def complaints(text: str, directory: Path) -> list[str]:
    """What systemd-analyze says of the unit `text`; it may say more about the machine's own."""
    # systemd looks for the program; in the tests it is in the venv.
    text = text.replace("ExecStart=s3mount ", f"ExecStart={COMMAND} ")
    (directory / UNIT.name).write_text(text)
    instance = directory / "s3mount@photos.service"
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", instance],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in result.stderr.splitlines() if "s3mount@" in line]


def test_unit_is_valid(tmp_path: Path) -> None:
    assert complaints(UNIT.read_text(), tmp_path) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [("RestartSec=5", "RestartSecs=5"), ("Type=notify", "Type=notifies"), ("@mount", "@mounts")],
)
def test_an_invalid_unit_is_found_out(good: str, bad: str, tmp_path: Path) -> None:
    assert complaints(UNIT.read_text().replace(good, bad), tmp_path) != []


def test_unit_makes_no_mount_namespace() -> None:
    """In one of its own, the mount would be seen by nobody: systemd.exec(5), PrivateMounts=."""
    assert NAMESPACED & set(unit()["Service"]) == set()


def test_example_configuration_is_what_the_program_reads() -> None:
    text = (SYSTEMD / "example.toml").read_text()
    # The suggestions in comments are part of the example.
    text = re.sub(r"^# (?=[a-z-]+ = )", "", text, flags=re.MULTILINE)
    settings = {setting.option.name for setting in configfile.parse(text, "example.toml")}
    assert {"bucket", "mountpoint", "endpoint-url", "profile", "cache-dir"} <= settings


def fstab_lines() -> list[str]:
    lines = (SYSTEMD / "fstab.example").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("line", fstab_lines())
def test_fstab_example_is_what_the_program_reads(line: str) -> None:
    source, directory, kind, options, dump, fsck = line.split()
    config = configure([source, directory, "-o", options], helper=True).config
    assert (kind, dump, fsck) == ("fuse.s3mount", "0", "0")
    assert (config.source, str(config.mountpoint)) == (source, directory)


# --- the service ----------------------------------------------------------------------


@dataclass
class Service:
    """The unit's command, run as systemd would: with a socket to tell how it fares."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def told(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().splitlines()

    def stop(self) -> int:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@dataclass
class Machine:
    """A server with a bucket, a mountpoint, and the unit's configuration for both."""

    server: Server
    directory: Path

    @property
    def mountpoint(self) -> Path:
        return self.directory / "mnt"

    def configure(self, bucket: str = "photos", more: str = "") -> None:
        """Write the .toml."""
        self.mountpoint.mkdir(exist_ok=True)
        (self.directory / "photos.toml").write_text(
            f'bucket = "{bucket}"\nmountpoint = "{self.mountpoint}"\nregion = "us-east-1"\n'
            f'endpoint-url = "{self.server.endpoint_url}"\npath-style = true\n'
            f'cache-dir = "{self.directory / "cache"}"\n{more}'
        )

    @contextmanager
    def start(self, *prefix: str) -> Iterator[Service]:
        """Run ExecStart, behind `prefix`; killed at the end when it still runs."""
        program, *arguments = shlex.split(unit()["Service"]["ExecStart"])
        assert program == COMMAND.name
        config = str(self.directory / "photos.toml")
        command = [arg.replace("/etc/s3mount/%i.toml", config) for arg in arguments]
        address = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            address.unlink(missing_ok=True)
            listener.bind(str(address))
            listener.settimeout(SECONDS)
            environment = os.environ | self.server.environment()
            del environment["AWS_ENDPOINT_URL_S3"]
            process = subprocess.Popen(
                [*prefix, COMMAND, *command],
                env=environment | {"NOTIFY_SOCKET": str(address)},
                stderr=subprocess.PIPE,
            )
            try:
                yield Service(process, listener)
            finally:
                process.kill()
                process.communicate()

    def is_mounted(self) -> bool:
        mounts = Path("/proc/mounts").read_text().splitlines()
        return any(line.split()[1] == str(self.mountpoint) for line in mounts)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with moto_server() as server:
        server.put("photos", {"a.txt": b"hello\n"})
        machine = Machine(server, tmp_path)
        machine.configure()
        yield machine
        if machine.is_mounted():
            subprocess.run(["umount", "--lazy", machine.mountpoint], check=True)


def test_ready_means_that_the_mount_answers(machine: Machine) -> None:
    # Slow enough that to say READY=1 before the bucket was asked would show.
    machine.server.set_latency(0.3)
    with machine.start() as service:
        assert service.told()[0] == "READY=1"
        assert machine.is_mounted()
        assert machine.server.counts().total() > 0
        assert (machine.mountpoint / "a.txt").read_bytes() == b"hello\n"


def test_stop_unmounts_and_says_so(machine: Machine) -> None:
    with machine.start() as service:
        assert service.told()[0] == "READY=1"
        assert service.stop() == 0
        assert service.told() == ["STOPPING=1"]
        assert not machine.is_mounted()


def test_restart_after_a_crash_clears_the_dead_mountpoint(machine: Machine) -> None:
    with machine.start() as service:
        assert service.told()[0] == "READY=1"
        service.process.kill()
        service.process.wait(SECONDS)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(machine.mountpoint)
    with machine.start() as service:
        assert service.told()[0] == "READY=1"
        assert os.listdir(machine.mountpoint) == ["a.txt"]
        assert service.stop() == 0
    assert not machine.is_mounted()


def fails(machine: Machine) -> tuple[int, str, bool]:
    """How the service fails: exit status, message, whether it ever said that it is ready."""
    with machine.start() as service:
        _, stderr = service.process.communicate(timeout=SECONDS)
        service.socket.setblocking(False)
        ready = False
        try:
            while True:
                ready = ready or "READY=1" in service.told()
        except BlockingIOError:
            return service.process.returncode, stderr.decode(), ready


def no_such_bucket(machine: Machine) -> None:
    machine.configure(bucket="no-such-bucket")


def wrong_option(machine: Machine) -> None:
    machine.configure(more='colour = "blue"\n')


@pytest.mark.parametrize(("spoil", "status"), [(no_such_bucket, 1), (wrong_option, 2)])
def test_a_start_that_fails_is_never_ready(
    spoil: Callable[[Machine], None], status: int, machine: Machine
) -> None:
    spoil(machine)
    returncode, stderr, ready = fails(machine)
    assert (returncode, ready) == (status, False)
    assert "no-such-bucket" in stderr or "colour" in stderr
    # A wrong configuration is not started again and again; whatever may pass is.
    assert (status == int(unit()["Service"]["RestartPreventExitStatus"])) == (status == 2)


def test_the_capabilities_that_the_unit_leaves_are_enough(machine: Machine) -> None:
    left = unit()["Service"]["CapabilityBoundingSet"].lower().split()
    bounding_set = ",".join(["-all", *(f"+{name.removeprefix('cap_')}" for name in left)])
    with machine.start("setpriv", f"--bounding-set={bounding_set}", "--no-new-privs") as service:
        assert service.told()[0] == "READY=1"
        assert (machine.mountpoint / "a.txt").read_bytes() == b"hello\n"
        assert service.stop() == 0
