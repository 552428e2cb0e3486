"""An HTTP server that answers word for word what a test tells it to: the lies and the breaks.

Each request takes the next answer from the script, whatever was asked. Requests are kept
as they came. It imports nothing of s3mount.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Self

ETAG = '"5eb63bbbe01eeed093cb22bb8f5acdc3"'


@dataclass
class Answer:
    """Bytes, and what happens to the connection after them.

    `hold`: nothing more comes until `more` is set, then `rest` is sent, and then the client is
    waited for until it closes, or with `kept` for its next request. `begun` is set when `data` is
    sent, `sent` when all is, `gone` when the connection has ended.
    """

    data: bytes
    then: Literal["keep", "close", "reset", "hold"] = "keep"
    rest: bytes = b""
    kept: bool = False
    begun: threading.Event = field(default_factory=threading.Event)
    more: threading.Event = field(default_factory=threading.Event)
    sent: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)


def head(status: str, *headers: str) -> bytes:
    """The head of an answer, each header a line."""
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def part(
    body: bytes,
    content_range: str | None = None,
    *,
    status: str = "206 Partial Content",
    etag: str | None = ETAG,
    length: int | None = None,
    extra: tuple[str, ...] = (),
) -> bytes:
    """A right answer to a range: each argument makes it another."""
    lines = [
        f"Content-Range: {content_range or f'bytes 0-{len(body) - 1}/{len(body)}'}",
        f"Content-Length: {len(body) if length is None else length}",
        "Last-Modified: Sat, 21 Nov 2026 07:56:42 GMT",
        *([f"ETag: {etag}"] if etag else []),
        *extra,
    ]
    return head(status, *lines) + body


def text(status: str, body: str, *headers: str) -> bytes:
    """An answer with a body of text."""
    data = body.encode()
    return head(status, f"Content-Length: {len(data)}", *headers) + data


def error(status: str, code: str, *headers: str, fields: str = "") -> bytes:
    """S3's way to refuse."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said</Message>{fields}</Error>"
    return text(status, body, "Content-Type: application/xml", *headers)


class ScriptedServer:
    """Listens on a free port; a thread per connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._script: deque[Answer] = deque()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._closed = False
        self.requests: list[bytes] = []
        self.asked = threading.Event()  # the first request has come
        self.connections = 0
        self._start(self._accept)

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def script(self, *answers: Answer | bytes) -> Self:
        """Add to what will be answered."""
        self._script.extend(
            answer if isinstance(answer, Answer) else Answer(answer) for answer in answers
        )
        return self

    def close(self) -> None:
        """End every thread and connection."""
        self._closed = True
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for answer in self._held:
            answer.more.set()
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    _held: tuple[Answer, ...] = ()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]  # a callable
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            buffered = b""
            while True:
                while b"\r\n\r\n" not in buffered:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffered += data
                request, _, buffered = buffered.partition(b"\r\n\r\n")
                self.requests.append(request)
                self.asked.set()
                if not self._answer(connection, self._script.popleft()):
                    return

    def _answer(self, connection: socket.socket, answer: Answer) -> bool:
        """Whether the connection goes on."""
        try:
            connection.sendall(answer.data)
            if answer.then == "hold":
                self._held += (answer,)
                answer.begun.set()
                answer.more.wait()
                connection.sendall(answer.rest)
            answer.sent.set()
            if answer.then == "hold" and not answer.kept:
                while connection.recv(65536):
                    pass
        except OSError:
            pass
        answer.sent.set()
        if answer.then == "keep" or answer.kept:
            return True
        if answer.then == "reset":
            # Linger 0: the kernel sends RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        answer.gone.set()
        return False


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A server that is closed at the end."""
    server = ScriptedServer()
    try:
        yield server
    finally:
        server.close()
