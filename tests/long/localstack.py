"""Starts LocalStack's S3: a second server, that shares no code with moto's S3.

It is installed into a venv of its own, since what it depends on is at odds with ours.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mounting import until
from tests.servers import Server

# cbor2 6, pyOpenSSL 25 and service-identity 25 have taken away what this version uses.
REQUIREMENTS = [
    "localstack-core[base-runtime]==4.9.2",
    "cbor2<6",
    "pyopenssl<25",
    "service-identity<25",
]


def install(directory: Path) -> Path:
    """The Python of a venv that has LocalStack; it is made once."""
    python, stamp = directory / "bin/python", directory / "installed"
    if not stamp.exists() or stamp.read_text().splitlines() != REQUIREMENTS:
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        stamp.write_text("\n".join(REQUIREMENTS))
    return python


@contextmanager
def localstack(python: Path, directory: Path) -> Iterator[Server]:
    """A running, empty LocalStack that keeps its files in `directory`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "SERVICES": "s3",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "GATEWAY_SERVER": "hypercorn",  # the other one needs a compiler
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
    }
    url = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    log = directory / "localstack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "localstack.runtime.main"],
            env=environment, cwd=directory, stdout=output, stderr=output,
        )  # fmt: skip

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError), opener.open(f"{url}/_localstack/health", timeout=5) as answer:
            return b'"s3"' in answer.read()
        return False

    server = Server(url, process)
    try:
        until(is_up, "LocalStack answers", 60)
        yield server
    finally:
        server.client.close()
        process.kill()
        process.wait()
