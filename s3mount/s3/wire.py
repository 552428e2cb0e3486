"""One HTTP/1.1 connection, as little of it as the lean path needs.

Used by one worker thread; `shut_down` alone may be called from another, and ends whatever
the thread waits for. Bodies go from the socket straight into the buffers given.

It is read without waiting (`poll_...`), or by a thread of its own. Over plain TCP the socket then
blocks, with SO_RCVTIMEO, and MSG_WAITALL makes a whole buffer one call: the thread leaves and
takes Python's lock once per MiB and not once per segment. Over TLS `records` does the same for
bodies; the rest waits with Python's own time-out.
Times in seconds. Raises OSError (TimeoutError and ssl.SSLError are some) and `NotHttp`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from typing import NamedTuple

from s3mount.errors import BadReply
from s3mount.s3.records import LEAST, Records, open_records

# Holds the head of any answer, and of a small one the body too.
SCRATCH = 32 * 1024
# A call that waits for a whole buffer ends with a part of it when its time is over, and does
# not tell when the last byte came. So it gets a part of the time-out, and silence is several
# such parts without a byte: it is noticed after 1 to 1 1/4 time-outs.
WAITS = 4
# Of an error, or of a listing: 1,000 keys of 1,024 bytes, each percent-encoded, are 3.3 MB.
LONGEST_TEXT = 16 * 1024 * 1024


class NotHttp(BadReply):
    """What came is no HTTP answer, or not one of the kind that S3 sends."""


class ClosedEarly(ConnectionError):
    """The server closed the connection before the answer, or its body, was whole."""


class Head(NamedTuple):
    """Status line and headers (names in lower case) of an answer."""

    status: int
    headers: dict[str, str]
    keep_alive: bool


class Address(NamedTuple):
    """Where to connect to; with `tls`, the host is verified."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Connection:
    """See the module."""

    def __init__(self, address: Address, timeout: float, scratch: bytearray) -> None:
        """Connects, each step within `timeout`. `scratch` is used until `close`."""
        self._sock = socket.create_connection((address.host, address.port), timeout)
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._set_timeout(socket.SO_SNDTIMEO, timeout)
            self._set_timeout(socket.SO_RCVTIMEO, timeout / WAITS)
            self._tls: ssl.SSLSocket | None = None
            if address.tls is not None:
                self._tls = address.tls.wrap_socket(self._sock, server_hostname=address.host)
                self._sock = self._tls
            else:
                self._sock.settimeout(None)
        except BaseException:
            self._sock.close()
            raise
        self._timeout = timeout
        self._by_record = False  # whole buffers cannot be had
        self._records: Records | None = None
        self._raw = scratch
        self._scratch = memoryview(scratch)
        self._begin = self._end = 0  # what is in the scratch buffer and not yet taken

    def close(self) -> None:
        """Close the socket, by the thread that uses it."""
        if self._records is not None:
            self._records.close()
            self._records = None
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._sock.fileno()

    def set_blocking(self, *, blocking: bool) -> None:
        """Have `read_...` and `send` wait, or have `poll_...` say what is there."""
        if not blocking:
            self._sock.settimeout(0)
        else:
            self._sock.settimeout(None if self._tls is None else self._timeout)

    def shut_down(self) -> None:
        """End what another thread waits for on this connection, at once."""
        with contextlib.suppress(OSError):  # it may be closed already
            # Not SSLSocket's own, which would take its state away under the reader.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def is_stale(self) -> bool:
        """Whether an idle connection was closed, or sent something nobody asked for."""
        if self._begin != self._end or (self._records is not None and self._records.is_pending):
            return True
        timeout = self._sock.gettimeout()
        try:
            self._sock.setblocking(False)
            # Of the raw socket: TLS has nothing to say between answers but that it ends. (A new
            # session ticket looks the same: then a connection is made once too often.)
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            self._sock.settimeout(timeout)
            return False
        except OSError:
            return True
        return True

    @property
    def heard(self) -> bool:
        """Whether anything of the answer under way has come."""
        return self._end > 0

    def send(self, data: bytes) -> None:
        """Send all of it: nothing of its answer has come."""
        self._begin = self._end = 0
        self._let_python_wait()
        self._sock.sendall(data)

    def read_head(self) -> Head:
        """Wait for an answer, and read its head. `ClosedEarly` when there is none."""
        while True:
            head = self._head_in(self._receive(self._scratch[self._end :]))
            if head is not None:
                return head

    def poll_head(self) -> Head | None:
        """The head of the answer; None while it is not all there."""
        # Until nothing is left: what OpenSSL has read ahead makes no descriptor readable.
        while (received := self._poll(self._scratch[self._end :])) is not None:
            if (head := self._head_in(received)) is not None:
                return head
        return None

    def poll_into(self, view: memoryview) -> int | None:
        """Fill as much of `view` as is there: 0 at the end, None when nothing is."""
        if self._begin < self._end:
            return self.read_into(view)
        return self._poll(view)

    def _poll(self, view: memoryview) -> int | None:
        try:
            return self._sock.recv_into(view)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def _head_in(self, received: int) -> Head | None:
        """The head, once it is whole; `received` bytes came to what is in the scratch buffer."""
        if not received:
            raise ClosedEarly("closed without an answer")
        searched = max(0, self._end - 3)
        self._end += received
        end = self._raw.find(b"\r\n\r\n", searched, self._end)
        if end < 0:
            if self._end == len(self._scratch):
                raise NotHttp("the head of the answer is too long")
            return None
        self._begin = end + 4
        return _parse(self._raw[:end].decode("latin-1"))

    def read_into(self, view: memoryview) -> int:
        """Fill as much of `view` as arrives within one time-out: 0 at the end."""
        kept = self._end - self._begin
        if kept:
            part = min(kept, len(view))
            view[:part] = self._scratch[self._begin : self._begin + part]
            self._begin += part
            return part
        return self._receive(view, whole=True)

    def read_text(self, head: Head) -> bytes:
        """The whole body of a listing or an error, however its length is told."""
        if "chunked" in head.headers.get("transfer-encoding", "").lower():
            return self._read_chunked()
        length = head.headers.get("content-length")
        if length is not None:
            if not length.isdigit() or int(length) > LONGEST_TEXT:
                raise NotHttp(f"a listing or error has the Content-Length {length!r}")
            return self._read_exactly(int(length))
        parts = bytearray()
        while data := self._read_some(65536):
            parts += data
            if len(parts) > LONGEST_TEXT:
                raise NotHttp("a listing or error does not end")
        return bytes(parts)

    def _receive(self, view: memoryview, *, whole: bool = False) -> int:
        """What is there of `view`, or as much as comes within one time-out."""
        if self._tls is None:
            flags = socket.MSG_WAITALL if whole else 0
            return self._wait(lambda: self._sock.recv_into(view, len(view), flags))
        records = self._open_records(self._tls) if whole and len(view) > LEAST else None
        if records is None:
            self._let_python_wait()
            return self._sock.recv_into(view)
        if self._sock.gettimeout() is not None:
            self._sock.settimeout(None)
        return self._wait(lambda: records.read_into(view))

    def _wait(self, receive: Callable[[], int]) -> int:
        for _ in range(WAITS):
            # What SO_RCVTIMEO makes of a time-out without a byte is EAGAIN.
            with contextlib.suppress(BlockingIOError):
                return receive()
        raise TimeoutError("timed out")

    def _open_records(self, sock: ssl.SSLSocket) -> Records | None:
        if self._records is None and not self._by_record:
            self._records = open_records(sock)
            self._by_record = self._records is None
        return self._records

    def _let_python_wait(self) -> None:
        """`ssl` does not notice the time-outs of a socket that blocks."""
        if self._tls is not None and self._sock.gettimeout() is None:
            self._sock.settimeout(self._timeout)

    def _set_timeout(self, option: int, seconds: float) -> None:
        value = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))
        self._sock.setsockopt(socket.SOL_SOCKET, option, value)

    def _read_some(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def _read_exactly(self, length: int) -> bytes:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            received = self.read_into(view)
            if not received:
                raise ClosedEarly("the answer ended early")
            view = view[received:]
        return bytes(buffer)

    def _read_line(self) -> bytes:
        """A line of a chunked body, without its end."""
        while True:
            line, found, _ = bytes(self._scratch[self._begin : self._end]).partition(b"\r\n")
            if found:
                self._begin += len(line) + 2
                return line
            kept = self._end - self._begin
            if kept > 1024:
                raise NotHttp("a line of a chunked body is too long")
            self._scratch[:kept] = bytes(self._scratch[self._begin : self._end])
            self._begin, self._end = 0, kept
            received = self._receive(self._scratch[kept:])
            if not received:
                raise ClosedEarly("the answer ended early")
            self._end += received

    def _read_chunked(self) -> bytes:
        body = bytearray()
        while True:
            line = self._read_line()
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise NotHttp(f"a chunk has the size {line!r}") from error
            if size < 0 or len(body) + size > LONGEST_TEXT:
                raise NotHttp("a listing or error does not end")
            if not size:
                break
            body += self._read_exactly(size)
            self._read_line()
        while self._read_line():
            pass  # trailers
        return bytes(body)


def _parse(text: str) -> Head:
    lines = text.split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise NotHttp(f"the answer begins with {lines[0][:60]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" and (version != "HTTP/1.0" or connection == "keep-alive")
    return Head(int(status), headers, keep_alive)
