"""An S3 with objects of any size, made up as they are read: moto is slow above some MiB.

The bytes of an object are known everywhere without keeping them: the mebibyte number n is the
same mebibyte of noise, rotated. Reads only; no delimiter, no signatures. A process of its own:
a test that waits for a page of a mapping holds Python's lock.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK = 1024 * 1024
_NOISE = random.Random(7).randbytes(CHUNK)
_TWICE = memoryview(_NOISE + _NOISE)


def chunk(number: int) -> memoryview:
    """The mebibyte `number` of any object."""
    at = number * 4099 % CHUNK  # a prime, so that neighbours differ everywhere
    return _TWICE[at : at + CHUNK]


def pieces(start: int, stop: int) -> Iterator[memoryview]:
    """The bytes [start, stop), in pieces."""
    while start < stop:
        number, at = divmod(start, CHUNK)
        piece = chunk(number)[at : at + stop - start]
        yield piece
        start += len(piece)


def expected(start: int, stop: int) -> bytes:
    """The bytes [start, stop) of any object that is as long."""
    return b"".join(pieces(start, stop))


@cache
def sha256(size: int) -> str:
    """Of an object of `size` bytes."""
    digest = hashlib.sha256()
    for piece in pieces(0, size):
        digest.update(piece)
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        key = unquote(urlsplit(self.path).path).split("/", 2)[2:]
        size = self.server.sizes.get(key[0]) if key else None
        if not key or not key[0]:
            self._answer(200, self.server.listing())
        elif size is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, size)
            self._head(206, stop - start, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
            for piece in pieces(start, stop):
                self.wfile.write(piece)

    def _head(self, status: int, length: int, more: Mapping[str, str]) -> None:
        headers = {"ETag": '"generated"', "Last-Modified": "Sat, 07 Nov 2026 07:07:07 GMT"}
        self.send_response_only(status)
        for name, value in {**headers, **more, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, len(body), {"Content-Type": "application/xml"})
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sizes = dict(sizes)

    def listing(self) -> bytes:
        objects = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-11-07T07:07:07.000Z</LastModified>"
            f"<ETag>&quot;generated&quot;</ETag><Size>{size}</Size></Contents>"
            for key, size in sorted(self.sizes.items())
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>generated</Name><KeyCount>{len(self.sizes)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"
        ).encode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle of a body is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def generated_s3(sizes: Mapping[str, int]) -> Iterator[str]:
    """Serve objects of these sizes, as the bucket "generated"; yields the endpoint's URL."""
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(sizes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Serve the sizes of the first argument until standard input ends."""
    with _Server(json.loads(sys.argv[1])) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.buffer.read()
        server.shutdown()


if __name__ == "__main__":
    main()
