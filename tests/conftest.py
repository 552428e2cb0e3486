"""What most tests start from: a real S3 server, a bucket of its own for each test, mounts."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that stands still for a moment makes no example too slow. The same examples in every
# run, so that one that passed once passes always; new ones are tried by scripts/test --long.
settings.register_profile(
    "same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("new", settings.get_profile("same"), derandomize=False)

# Their assertions shall say what differs, as those of the tests themselves do.
pytest.register_assert_rewrite("tests.mounting", "tests.mount.tools")

from tests.mounting import Mounts, clear_dead_mounts  # noqa: E402  behind the line above, or it has no effect
from tests.servers import Server, moto_server  # noqa: E402  the same

_numbers = count(1)

# What is ignored, as under nohup or behind a shell's "&", children would inherit.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("same" if config.option.markexpr == "not long" else "new")


class Bucket:
    """A bucket on the server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"bucket-{next(_numbers)}"
        server.put(self.name, {})

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Put or replace objects, and forget the requests so far."""
        self.server.put_many(self.name, objects)

    def delete(self, *keys: str) -> None:
        """Delete objects, and forget the requests so far."""
        for key in keys:
            self.server.client.delete_object(Bucket=self.name, Key=key)
        self.server.reset()

    def contents(self) -> dict[str, tuple[int, str, str]]:
        """Every key with its size, ETag and time: to see whether anything changed."""
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {
            found["Key"]: (found["Size"], found["ETag"], str(found["LastModified"]))
            for page in pages
            for found in page.get("Contents", ())
        }


@pytest.fixture(scope="session", autouse=True)
def _no_dead_mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Clear what a test run that was killed left mounted: pytest could not remove it.

    Not below this run's own directory: beside this process others may run its tests.
    """
    here = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        here = here.parent
    clear_dead_mounts(here.parent, but=here)


@pytest.fixture(scope="session")
def _moto() -> Iterator[Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="module")
def module_server(_moto: Server) -> Server:
    """The server, for fixtures that a module's tests share."""
    return _moto


@pytest.fixture
def server(_moto: Server) -> Iterator[Server]:
    """The server, counting from zero, answering at once."""
    _moto.reset()
    yield _moto
    _moto.set_latency(0)


@pytest.fixture
def bucket(server: Server) -> Bucket:
    """An empty bucket."""
    return Bucket(server)


@pytest.fixture
def mount(server: Server, tmp_path: Path) -> Iterator[Mounts]:
    """Mounts buckets of `server`; unmounts, and looks the logs through, at the end."""
    with Mounts(tmp_path, server) as mounts:
        yield mounts


@pytest.fixture(scope="module")
def module_bucket(module_server: Server) -> Bucket:
    """An empty bucket for all tests of a module."""
    return Bucket(module_server)


@pytest.fixture(scope="module")
def module_mount(
    module_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounts]:
    """As `mount`, for fixtures that a module's tests share."""
    with Mounts(tmp_path_factory.mktemp("mounts"), module_server) as mounts:
        yield mounts


@pytest.fixture
def open_path() -> Iterator[Path]:
    """An empty directory that any user can reach, as `tmp_path` is its owner's alone."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "mnt")
        path.mkdir()
        yield path
