"""Starts and ends the S3 servers that tests, the demo and benchmarks talk to.

    with moto_server() as server:
        server.put("bucket", {"a.txt": b"hello"})
        run(["s3mount", "bucket", ...], env=os.environ | server.environment())
        assert server.counts() == {"LIST": 1}

Knows nothing of s3mount: what it says about requests is what the server saw.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config

ACCESS_KEY = "test"
SECRET_KEY = "test-secret"  # moto takes any
REGION = "us-east-1"


@dataclass
class Server:
    """A running S3: where it is, what it was asked, and a client to fill it with.

    `counts` and `requests` cover what came since the start or the last `reset`, the
    requests of `client` included.
    """

    endpoint_url: str
    process: subprocess.Popen[bytes] | None = None
    ca_path: Path | None = None
    _client: Any = field(default=None, repr=False)

    @property
    def client(self) -> Any:
        """A plain boto3 S3 client for this server, not counted apart."""
        if self._client is None:
            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint_url,
                region_name=REGION,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                verify=str(self.ca_path) if self.ca_path else None,
                config=Config(s3={"addressing_style": "path"}, proxies={}),
            )
        return self._client

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Create the bucket if need be, put the objects, and `reset`."""
        names = [found["Name"] for found in self.client.list_buckets()["Buckets"]]
        if bucket not in names:
            self.client.create_bucket(Bucket=bucket)
        self.put_many(bucket, objects)

    def put_many(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Put or replace objects of a bucket that is there, and `reset`."""
        order = {"bucket": bucket, "objects": [(key, len(body)) for key, body in objects.items()]}
        self._control("objects", b"".join((json.dumps(order).encode(), b"\n", *objects.values())))
        self.reset()

    def environment(self) -> dict[str, str]:
        """Variables that make boto3, and so s3mount, in a child process use this server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def requests(self) -> list[dict[str, str]]:
        """Every request, in the order of arrival: kind, path, query, range."""
        answer: list[dict[str, str]] = json.loads(self._control("requests"))
        return answer

    def counts(self) -> Counter[str]:
        """Requests by kind: HEAD, GET, LIST, PUT, POST, DELETE. Compare with a plain dict."""
        return Counter(request["kind"] for request in self.requests())

    def reset(self) -> None:
        """Forget the requests so far."""
        self._control("reset", b"")

    def set_latency(self, seconds: float) -> None:
        """Wait so long before each answer from now on."""
        self._control("latency", str(seconds).encode())

    def _control(self, what: str, body: bytes | None = None) -> bytes:
        context = ssl.create_default_context(cafile=self.ca_path)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{self.endpoint_url}/-/{what}", data=body, timeout=10) as answer:
            data: bytes = answer.read()
            return data


class Certificate(NamedTuple):
    """Files of a certificate for 127.0.0.1 and localhost, and of the CA that signed it."""

    ca: Path
    cert: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """A new CA and a certificate of its, in `directory`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30"),
        *("-subj", "/CN=CA of the tests", "-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl(
        *("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"),
    )
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30"),
        *("-CAcreateserial", "-extfile", "extensions", "-out", "server.pem"),
    )
    return Certificate(*(directory / name for name in ("ca.pem", "server.pem", "server.key")))


@contextmanager
def moto_server(certificate: Certificate | None = None) -> Iterator[Server]:
    """An empty moto in a process of its own, on a free port; ended on the way out."""
    tls = [f"--cert={certificate.cert}", f"--key={certificate.key}"] if certificate else []
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("moto_server.py")), *tls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    server = None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"moto did not start: exit status {process.wait()}")
        scheme, port = "https" if certificate else "http", json.loads(line)["port"]
        ca_path = certificate.ca if certificate else None
        server = Server(f"{scheme}://127.0.0.1:{port}", process, ca_path)
        yield server
    finally:
        if server is not None and server._client is not None:
            server._client.close()
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()
