"""The modelled S3 as a Python object: start, fill, set its model and faults, count, stop.

Invariants: all its files are in one directory of its own; it listens on 127.0.0.1 alone; objects
are replaced atomically, because their files are named after their contents and never change.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from benchmarks.modelled_s3.faults import Fault

HERE = Path(__file__).parent

TIME_TO_FIRST_BYTE = 0.025
"""Seconds: what a GET within one region takes to its first byte."""
CONNECTION_RATE = 90_000_000
"""Bytes/s of one connection, as AWS's performance guidelines state it (85-90 MB/s)."""

KINDS = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE", "OTHER")
_START_TIMEOUT = 10.0
_CONTROL_TIMEOUT = 60.0
_LOOK = 0.002


class ModelledS3Error(Exception):
    """The server did not start, or refused a command; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests since the last reset, by kind, and bytes."""

    requests: Mapping[str, int]
    """By kind: GET (of an object), HEAD, LIST (any GET of a bucket), PUT, POST, DELETE, OTHER."""
    bytes_sent: int
    """Of bodies of GET and LIST, in requests that ended."""
    bytes_received: int
    in_flight: int
    peak_in_flight: int
    faults: Mapping[str, int]
    """Requests struck, by kind of fault."""
    statuses: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Requests of all kinds."""
        return sum(self.requests.values())

    def __getitem__(self, kind: str) -> int:
        return self.requests[kind]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run_openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def _make_certificates(directory: Path) -> None:
    """ca.pem, and server.pem signed by it: some TLS stacks refuse a CA as the server's own."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _run_openssl(
        directory,
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30"),
        *("-subj", "/CN=modelled S3 CA", "-addext", "keyUsage=critical,keyCertSign"),
    )
    _run_openssl(
        directory,
        *("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"),
    )
    extensions = directory / "extensions"
    extensions.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"
        "basicConstraints=critical,CA:FALSE\n"
    )
    _run_openssl(
        directory,
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "30", "-extfile", "extensions", "-out", "server.pem"),
    )


def _find_nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None or not Path("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists():
        raise ModelledS3Error(
            "the modelled S3 needs nginx with Lua: apt-get install nginx-light "
            "libnginx-mod-http-lua"
        )
    return found


class ModelledS3:
    """An S3 server on a free port of 127.0.0.1; a context manager.

    Args:
        ttfb: seconds before the first byte of every answer.
        rate: bytes/s of one connection; 0 for no limit.
        tls: also listen for TLS (`tls_endpoint_url`, `ca_path`).
        buckets: created at the start.
        directory: where its files go; by default a temporary directory, removed at the end.
        workers: nginx's processes. More than one makes conditional writes racy.
    """

    def __init__(
        self,
        *,
        ttfb: float = TIME_TO_FIRST_BYTE,
        rate: int = CONNECTION_RATE,
        tls: bool = False,
        buckets: Iterable[str] = ("bucket",),
        directory: Path | None = None,
        workers: int = 1,
    ) -> None:
        self._ttfb, self._rate, self._tls, self._workers = ttfb, rate, tls, workers
        self._buckets = tuple(buckets)
        self._given_directory = directory
        self.directory = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = self._tls_port = 0
        self._files: dict[str, set[str]] = {}  # those that `put` and `put_many` wrote, for `warm`

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<ModelledS3 {self.endpoint_url} {state}>"

    @property
    def endpoint_url(self) -> str:
        """http://127.0.0.1:PORT, for path-style requests."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def tls_endpoint_url(self) -> str:
        """https://127.0.0.1:PORT; `ca_path` vouches for it."""
        return f"https://127.0.0.1:{self._tls_port}"

    @property
    def ca_path(self) -> Path:
        """The CA's certificate, as PEM."""
        return self.directory / "ca.pem"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, with empty buckets.

        Raises:
            ModelledS3Error: nginx is not installed, or does not start.
        """
        nginx = _find_nginx()
        if self._given_directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="modelled-s3-"))
        else:
            self.directory = self._given_directory.absolute()
            self.directory.mkdir(parents=True, exist_ok=True)
        shards = (f"data/{shard:02x}" for shard in range(256))
        for name in ("data", *shards, "body", "parts", "unused"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "index").touch()
        if self._tls:
            _make_certificates(self.directory)
        for _ in range(5):  # another process may take the port that was free
            if self._try_start(nginx):
                break
        else:
            log = (self.directory / "error.log").read_text()
            self.stop()
            raise ModelledS3Error(f"nginx did not start: {log}")
        self.set_model(ttfb=self._ttfb, rate=self._rate)
        for bucket in self._buckets:
            self.create_bucket(bucket)

    def _try_start(self, nginx: str) -> bool:
        self._port, self._tls_port = _free_port(), _free_port()
        reuse = " reuseport" if self._workers > 1 else ""
        listen = f"        listen 127.0.0.1:{self._port} backlog=4096{reuse};\n"
        if self._tls:
            listen += (
                f"        listen 127.0.0.1:{self._tls_port} ssl backlog=4096{reuse};\n"
                f"        ssl_certificate {self.directory}/server.pem;\n"
                f"        ssl_certificate_key {self.directory}/server.key;\n"
                f"        ssl_session_cache shared:tls:1m;\n"
            )
        configuration = self.directory / "nginx.conf"
        configuration.write_text(
            Template((HERE / "nginx.conf").read_text()).substitute(
                directory=self.directory,
                lua=HERE,
                workers=self._workers,
                open_files=min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
                listen=listen,
                # Workers write below a directory that belongs to whoever started this.
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        self._process = subprocess.Popen(
            [
                *(nginx, "-p", str(self.directory), "-c", str(configuration)),
                *("-e", str(self.directory / "error.log")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                    return True
            except ConnectionRefusedError:
                time.sleep(0.005)
        self._end_process()
        return False

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End nginx, every connection with it, and remove the files if they were temporary."""
        self._end_process()
        if self._given_directory is None and self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- the control location -------------------------------------------------------------------

    def _control(self, method: str, path: str, body: str | None = None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_CONTROL_TIMEOUT)
        try:
            connection.request(method, "/-/" + path, body)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise ModelledS3Error(f"{method} {path} was refused: {response.status} {text}")
        return text

    def set_model(self, *, ttfb: float, rate: int) -> None:
        """Seconds to the first byte, and bytes/s of one connection (0: no limit)."""
        self._control("PUT", "model?" + urlencode({"ttfb": ttfb, "rate": rate}))

    def set_faults(self, *faults: Fault, seed: int = 0) -> None:
        """From now on these faults, and no others, strike. Their shares add up."""
        lines = "".join(fault.encoded() + "\n" for fault in faults)
        self._control("PUT", f"faults?seed={seed}", lines)

    def clear_faults(self) -> None:
        """No faults any more. Requests that are stalled stay so."""
        self.set_faults()

    def hang(self, seconds: float) -> None:
        """Accept what is sent within the next `seconds`, and never answer it."""
        self._control("PUT", f"hang?seconds={seconds}")

    def counts(self, settle: float = 1.0) -> Counts:
        """What was asked since `reset_counts`.

        A client has the last byte before the server has counted it: waits `settle` seconds, or
        until no request is under way. Counted in looks, not by the clock: a server that stands
        still for that long has counted nothing meanwhile.
        """
        looks = 0
        while True:
            values = {
                name: int(value)
                for name, value in (
                    line.split("=") for line in self._control("GET", "counts").splitlines()
                )
            }
            if values.get("in_flight", 0) == 0 or looks * _LOOK >= settle:
                break
            looks += 1
            time.sleep(_LOOK)
        return Counts(
            requests={kind: values.get(kind, 0) for kind in KINDS},
            bytes_sent=values.get("bytes_sent", 0),
            bytes_received=values.get("bytes_received", 0),
            in_flight=values.get("in_flight", 0),
            peak_in_flight=values.get("peak_in_flight", 0),
            faults={n[6:]: v for n, v in values.items() if n.startswith("fault:")},
            statuses={int(n[7:]): v for n, v in values.items() if n.startswith("status_")},
        )

    def reset_counts(self) -> None:
        """Count from zero; requests under way stay counted as under way."""
        self._control("DELETE", "counts")

    def log(self) -> list[str]:
        """One line per request that ended: kind, status, bytes, seconds, method, URI, range..."""
        return (self.directory / "access.log").read_text().splitlines()

    # --- buckets and objects ----------------------------------------------------------------------

    def create_bucket(self, bucket: str) -> None:
        """A bucket without objects, unless it is there."""
        self._append(f"B\t{bucket}\n")

    def put(self, bucket: str, key: str, content: bytes | Path) -> str:
        """Put or replace one object, atomically; returns its ETag, unquoted."""
        file, size, etag = self._store(content)
        self._files.setdefault(bucket, set()).add(file)
        self._append(_put_line(bucket, key, size, etag, file))
        return etag

    replace = put

    def put_many(
        self,
        bucket: str,
        objects: Mapping[str, bytes | Path] | Iterable[tuple[str, bytes | Path]],
    ) -> None:
        """Put objects: all are seen at once. Equal contents share one file."""
        pairs = objects.items() if isinstance(objects, Mapping) else objects
        stored: dict[bytes | Path, tuple[str, int, str]] = {}
        lines: list[str] = []
        files = self._files.setdefault(bucket, set())
        for key, content in pairs:
            small = isinstance(content, Path) or len(content) <= 65536
            known = stored.get(content) if small else None
            file, size, etag = known or self._store(content)
            if small and len(stored) < 65536:
                stored[content] = (file, size, etag)
            files.add(file)
            lines.append(_put_line(bucket, key, size, etag, file))
        self._append("".join(lines))

    def delete(self, bucket: str, *keys: str) -> None:
        """Delete objects; those that are not there are passed over."""
        self._append("".join(f"D\t{bucket}\t{quote(key)}\n" for key in keys))

    def warm(self, bucket: str) -> None:
        """Read the files of the bucket's objects, so that this disk is not what is measured."""
        buffer = bytearray(1 << 20)
        for file in self._files.get(bucket, ()):
            with (self.directory / "data" / file).open("rb", buffering=0) as opened:
                while opened.readinto(buffer):
                    pass

    def _store(self, content: bytes | Path) -> tuple[str, int, str]:
        """Copy to a file named after its MD5: file, size, ETag."""
        if isinstance(content, Path):
            with content.open("rb") as source:
                etag = hashlib.file_digest(source, _md5).hexdigest()
            size = content.stat().st_size
        else:
            etag, size = _md5(content).hexdigest(), len(content)
        file = f"{etag[:2]}/{etag}"
        target = self.directory / "data" / file
        if not target.exists():
            temporary = target.with_suffix(".new")
            if isinstance(content, Path):
                shutil.copyfile(content, temporary)
            else:
                temporary.write_bytes(content)
            temporary.rename(target)
        return file, size, etag

    def _append(self, lines: str) -> None:
        data = memoryview(lines.encode())
        descriptor = os.open(self.directory / "index", os.O_WRONLY | os.O_APPEND)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        self._control("GET", "ready")


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _put_line(bucket: str, key: str, size: int, etag: str, file: str) -> str:
    return f"P\t{bucket}\t{quote(key)}\t{size}\t{int(time.time())}\t{etag}\t{file}\t\n"
