"""An HTTP proxy in front of a real S3 server, that does to requests what a test asks for.

    with FaultProxy(server.endpoint_url) as proxy:
        mounted = mount("bucket", endpoint_url=proxy.endpoint_url)
        proxy.on("GET", refuse(403, "AccessDenied"), key="secret.txt")

Only what reads S3 passes: GET and HEAD. Kinds are those of `tests.moto_server.kind_of`.
"""

from __future__ import annotations

import http.client
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.moto_server import kind_of

Action = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One connection of a client; `forward` has the real server answer its request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    proxy: FaultProxy

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, _Server)
        self.proxy = self.server.proxy
        self.upstream = http.client.HTTPConnection(self.proxy.upstream)
        self.proxy.sockets.add(self.connection)

    def finish(self) -> None:
        self.upstream.close()
        self.proxy.sockets.discard(self.connection)
        try:
            super().finish()
        except OSError:  # the client, or an action of ours, has closed the connection
            self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # as above
            self.close_connection = True

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        kind = kind_of(self.command, path, query)
        self.proxy.action_for(kind, unquote(path).split("/", 2)[-1])(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def forward(self, edit: Callable[[bytes], bytes] | None = None) -> None:
        """Relay the server's answer; its body passes through `edit`."""
        answer, body = self.ask()
        body = edit(body) if edit is not None else body
        self.begin(answer, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def ask(self) -> tuple[http.client.HTTPResponse, bytes]:
        """The server's answer to the request."""
        self.upstream.request(self.command, self.path, headers=dict(self.headers.items()))
        answer = self.upstream.getresponse()
        body = answer.read()
        self.upstream.close()  # the server may close it when it rests for a while
        return answer, body

    def begin(self, answer: http.client.HTTPResponse, length: int) -> None:
        """Send the head of the answer, promising so many bytes."""
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        if self.command == "HEAD":
            length = int(answer.getheader("Content-Length") or 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


# --- what can happen to a request ---------------------------------------------------------


def forward(exchange: Exchange) -> None:
    """Nothing: it is answered."""
    exchange.forward()


def refuse(status: int, code: str, message: str = "as the test wants it", **more: str) -> Action:
    """An error of S3's, as XML; `more` are further elements."""

    def act(exchange: Exchange) -> None:
        elements = {"Code": code, "Message": message, **more}
        xml = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{xml}</Error>'.encode()
        exchange.send_response(status)
        exchange.send_header("Content-Type", "application/xml")
        exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        if exchange.command != "HEAD":
            exchange.wfile.write(body)
        exchange.wfile.flush()

    return act


def hang(exchange: Exchange) -> None:
    """No answer, until `FaultProxy.release` is called; then the right one."""
    exchange.proxy.hanging.release()
    exchange.proxy.released.wait()
    exchange.forward()


def reset(exchange: Exchange) -> None:
    """The connection is reset (RST) without an answer."""
    linger = struct.pack("ii", 1, 0)
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    exchange.close_connection = True


def cut(after: int) -> Action:
    """The body ends behind so many bytes."""

    def act(exchange: Exchange) -> None:
        answer, body = exchange.ask()
        exchange.begin(answer, len(body))
        exchange.wfile.write(body[:after])
        exchange.wfile.flush()
        exchange.close_connection = True

    return act


def stall(after: int) -> Action:
    """The body stops behind so many bytes, until `FaultProxy.release` is called."""

    def act(exchange: Exchange) -> None:
        answer, body = exchange.ask()
        exchange.begin(answer, len(body))
        exchange.wfile.write(body[:after])
        exchange.wfile.flush()
        exchange.proxy.hanging.release()
        exchange.proxy.released.wait()
        exchange.wfile.write(body[after:])
        exchange.wfile.flush()

    return act


def edited(edit: Callable[[bytes], bytes]) -> Action:
    """The body is another one; its headers stay."""
    return lambda exchange: exchange.forward(edit)


def whole(exchange: Exchange) -> None:
    """The range is passed over: 200, with the whole object."""
    del exchange.headers["Range"]
    exchange.forward()


def after(prepare: Callable[[], object]) -> Action:
    """Something else happens first, such as a change of the bucket; then it is answered."""

    def act(exchange: Exchange) -> None:
        prepare()
        exchange.forward()

    return act


@dataclass
class _Rule:
    kind: str
    action: Action
    key: str | None
    times: int | None


class _Server(ThreadingHTTPServer):
    # More than connect at once: whoever finds it full tries again after a second.
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong for the test, which looks at it in the end."""
        self.proxy.errors.append(repr(sys.exception()))


class FaultProxy:
    """The proxy, on a free port; a context manager."""

    def __init__(self, endpoint_url: str) -> None:
        self.upstream = urlsplit(endpoint_url).netloc
        self.sockets: set[socket.socket] = set()
        self.errors: list[str] = []
        self.hanging = threading.Semaphore(0)  # released once for each request that hangs
        self.released = threading.Event()
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._is_up = False

    @property
    def endpoint_url(self) -> str:
        """For clients; path style."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_up = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        self.go()
        assert self.errors == []

    def on(
        self, kind: str, action: Action, *, key: str | None = None, times: int | None = None
    ) -> None:
        """From now on, do this to requests of the kind ("GET", "HEAD", "LIST" or "*").

        `key`: only to those for this key; `times`: to so many. The newest rule counts.
        """
        with self._lock:
            self._rules.insert(0, _Rule(kind, action, key, times))

    def clear(self) -> None:
        """From now on, all are answered; what hangs goes on."""
        with self._lock:
            self._rules.clear()
        self.release()

    def release(self) -> None:
        """What hangs or is stalled goes on, now and later."""
        self.released.set()

    def wait_until_hanging(self, seconds: float = 20) -> None:
        """Until one more request hangs."""
        assert self.hanging.acquire(timeout=seconds), "no request came to hang"

    def go(self) -> None:
        """The server is gone: its port refuses, and its connections are closed."""
        if not self._is_up:
            return
        self._is_up = False
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for each in list(self.sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                self.sockets.discard(each)

    def action_for(self, kind: str, key: str) -> Action:
        """What to do to a request."""
        with self._lock:
            for rule in self._rules:
                if rule.kind not in (kind, "*") or rule.key not in (None, key):
                    continue
                if rule.times is not None:
                    if rule.times == 0:
                        continue
                    rule.times -= 1
                return rule.action
        return forward
