"""READY=1 and STOPPING=1 on a real notify socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.sd_notify import notify
from tests.cli.conftest import Command


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = f"@s3mount-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0", 1))
        channel.settimeout(20)
        yield name, channel


def test_notify(listener: tuple[str, socket.socket]) -> None:
    address, channel = listener
    assert notify(address, "READY=1")
    assert channel.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative", "/no/such/socket"])
def test_nobody_listens(address: str | None) -> None:
    assert not notify(address, "READY=1")


@pytest.mark.parametrize("argv", [["-f"], []], ids=["in front", "in the background"])
def test_the_command_notifies(
    argv: list[str], command: Command, listener: tuple[str, socket.socket]
) -> None:
    address, channel = listener
    code, err = command.run("return", *argv, "logs", "/mnt", env={"NOTIFY_SOCKET": address})
    assert (code, err) == (0, "")
    report = command.report()
    assert channel.recv(100).decode() == f"READY=1\nMAINPID={report['pid']}"
    assert channel.recv(100) == b"STOPPING=1"
    assert report["notify_socket"] is None  # nor do its own children speak for it


def test_no_ready_without_a_mount(command: Command, listener: tuple[str, socket.socket]) -> None:
    address, channel = listener
    code, _ = command.run("fail", "-f", "logs", "/mnt", env={"NOTIFY_SOCKET": address})
    assert code == 1
    channel.setblocking(False)  # the command has ended: whatever it had to say is here
    with pytest.raises(BlockingIOError):
        channel.recv(100)
