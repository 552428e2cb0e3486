"""A real S3 over HTTP for tests: moto behind a middleware that counts, as its own process.

Run as a program (with --cert and --key: over TLS) it binds a free port, prints one line of
JSON (`{"port": N}`), and serves until its standard input ends: so it never outlives the
test run that started it, even when that one is killed. Under `/-/` it answers about itself:

    GET  /-/requests   every request since the last reset, in order: kind, path, query, range
    POST /-/reset      forgets them
    POST /-/latency    body: seconds to wait before each answer (0 at the start)
    POST /-/objects    puts many at once, a hundred times as fast as one by one; body: a line of
                       JSON, `{"bucket": B, "objects": [[KEY, SIZE], ...]}`, and their bytes

It imports nothing of s3mount.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from flask import Flask
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server import werkzeug_app
from moto.moto_server.utilities import RegexConverter
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class KeepAliveHandler(MotoRequestHandler):
    """HTTP/1.1, so that clients reuse connections as they do with S3; silent."""

    protocol_version = "HTTP/1.1"
    # Without it, a small answer waits 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing."""


class AnyKeyConverter(RegexConverter):
    """Lets a key hold line breaks, as S3 does: moto's pattern `.+` would answer 404."""

    def __init__(self, url_map: Any, *items: Any) -> None:
        super().__init__(url_map, *(item.replace(".", r"[\s\S]") for item in items))


def create_app(service: Any) -> Flask:
    """moto's application, for which `a//b` is another key than `a/b`, as in S3."""
    app = werkzeug_app.create_backend_app(service)
    app.url_map.merge_slashes = False
    return app


class Counting:
    """WSGI middleware: keeps a record of each request, then lets moto answer it."""

    def __init__(self, app: Callable[[Environ, StartResponse], Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._requests: list[dict[str, str]] = []
        self._latency = 0.0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        if path.startswith("/-/"):
            return self._control(path, environ, start_response)
        query = environ["QUERY_STRING"]
        record = {
            "kind": kind_of(environ["REQUEST_METHOD"], path, query),
            "path": path,
            "query": query,
            "range": environ.get("HTTP_RANGE", ""),
        }
        with self._lock:
            self._requests.append(record)
        if self._latency:
            time.sleep(self._latency)
        return self._app(environ, start_response)

    def _control(
        self, path: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if path == "/-/objects":
            put_objects(body)
        with self._lock:
            answer = json.dumps(self._requests).encode()
            if path == "/-/reset":
                self._requests.clear()
            elif path == "/-/latency":
                self._latency = float(body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        start_response("200 OK", headers)
        return [answer]


def put_objects(body: bytes) -> None:
    """What /-/objects does; the bucket is there."""
    what, _, content = body.partition(b"\n")
    order = json.loads(what)
    at = 0
    for key, size in order["objects"]:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(
            order["bucket"], key, content[at : at + size]
        )
        at += size


def kind_of(method: str, path: str, query: str) -> str:
    """Such as "HEAD", "GET", "LIST", "PUT", ...: the kind that S3 puts on the bill."""
    parameters = parse_qs(query, keep_blank_values=True)
    if method == "GET" and ("list-type" in parameters or path.count("/") == 1):
        return "LIST"
    return method


def main() -> None:
    """Serve on a free port until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    logging.disable()
    # create_backend_app looks the name up there.
    vars(werkzeug_app)["RegexConverter"] = AnyKeyConverter
    dispatcher = DomainDispatcherApplication(create_app)
    # The application is made before the port is told: the first request is as fast as the next.
    dispatcher.get_application({"PATH_INFO": "/", "REQUEST_METHOD": "GET"})
    server = make_server(
        "127.0.0.1",
        0,
        Counting(dispatcher),
        threaded=True,
        request_handler=KeepAliveHandler,
        ssl_context=(arguments.cert, arguments.key) if arguments.cert else None,
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
