"""Whole buffers over TLS: what comes is what was sent, and every end is told as what it is."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

import pytest

from s3mount.s3.records import AHEAD, LEAST, Records, open_records
from s3mount.s3.wire import SCRATCH, Address, Connection
from tests.servers import Certificate

HEAD = b"HTTP/1.1 206 Partial Content\r\n\r\n"
BODY = bytes(range(256)) * 400  # seven records
RECORD = 16 * 1024


class Server:
    """A server that sees what it sends as ciphertext, and the connection to it."""

    def __init__(self, certificate: Certificate) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        context.num_tickets = 0
        self._read, self._write = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._read, self._write, server_side=True)
        shaking = threading.Thread(target=self._shake_hands, args=(listener,))
        shaking.start()
        trusted = ssl.create_default_context(cafile=certificate.ca)
        address = Address("127.0.0.1", listener.getsockname()[1], trusted)
        self.connection = Connection(address, 0.4, bytearray(SCRATCH))
        shaking.join()
        listener.close()

    def _shake_hands(self, listener: socket.socket) -> None:
        self.sock, _ = listener.accept()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._write.read())
                self._read.write(self.sock.recv(RECORD))
            else:
                self.sock.sendall(self._write.read())
                return

    def encrypt(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._write.read()

    def farewell(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._write.read()

    def begin(self) -> None:
        """Have the head of an answer read, so that a body follows."""
        self.sock.sendall(self.encrypt(HEAD))
        assert self.connection.read_head().status == 206

    def close(self) -> None:
        self.connection.close()
        self.sock.close()


@pytest.fixture
def server(certificate: Certificate) -> Iterator[Server]:
    server = Server(certificate)
    yield server
    server.close()


@pytest.mark.parametrize("piece", [1, 1000, RECORD, 1 << 20])
def test_one_call_fills_the_buffer_however_the_records_are_torn(server: Server, piece: int) -> None:
    server.begin()
    data = server.encrypt(BODY)

    def send() -> None:
        for at in range(0, len(data), piece):
            server.sock.sendall(data[at : at + piece])

    thread = threading.Thread(target=send)
    thread.start()
    into = memoryview(bytearray(len(BODY)))
    assert server.connection.read_into(into) == len(BODY)
    thread.join()
    assert bytes(into) == BODY
    assert not server.connection.is_stale()


def test_the_rest_of_a_record_is_not_lost(server: Server) -> None:
    server.begin()
    server.sock.sendall(server.encrypt(BODY))
    sizes = [LEAST + 1, 1, LEAST, 3 * LEAST, 10, AHEAD]
    got = b""
    for size in [*sizes, len(BODY) - sum(sizes)]:
        into = memoryview(bytearray(size))
        while into:
            count = server.connection.read_into(into)
            got += into[:count]
            into = into[count:]
    assert got == BODY


def test_silence_within_a_record(server: Server) -> None:
    server.begin()
    data = server.encrypt(BODY)
    server.sock.sendall(data[: len(data) // 2])
    into = memoryview(bytearray(len(BODY)))
    received = server.connection.read_into(into)
    assert received == len(BODY) // 2 // RECORD * RECORD
    with pytest.raises(TimeoutError):
        server.connection.read_into(into[received:])
    server.sock.sendall(data[len(data) // 2 :])
    assert server.connection.read_into(into[received:]) == len(BODY) - received
    assert bytes(into) == BODY


def test_tampering(server: Server) -> None:
    server.begin()
    data = bytearray(server.encrypt(BODY))
    data[3 * RECORD] ^= 1
    server.sock.sendall(data)
    into = memoryview(bytearray(len(BODY)))
    assert server.connection.read_into(into) == 2 * RECORD
    assert into[: 2 * RECORD] == BODY[: 2 * RECORD]
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            server.connection.read_into(into[2 * RECORD :])


@pytest.mark.parametrize("polite", [False, True])
def test_the_end_within_a_body(server: Server, polite: bool) -> None:
    server.begin()
    server.sock.sendall(server.encrypt(BODY[:RECORD]) + (server.farewell() if polite else b""))
    server.sock.shutdown(socket.SHUT_WR)
    into = memoryview(bytearray(len(BODY)))
    assert server.connection.read_into(into) == RECORD
    for _ in range(2):
        assert server.connection.read_into(into[RECORD:]) == 0
    assert server.connection.is_stale()


def test_a_reset_within_a_body(server: Server) -> None:
    server.begin()
    server.sock.sendall(server.encrypt(BODY[:RECORD]))
    into = memoryview(bytearray(len(BODY)))
    assert server.connection.read_into(into) == RECORD
    server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.sock.close()
    with pytest.raises(ConnectionResetError):
        server.connection.read_into(into[RECORD:])


def test_one_connection_s_failure_is_not_another_s(
    server: Server, certificate: Certificate
) -> None:
    other = Server(certificate)
    for each in (server, other):
        each.begin()
    server.sock.sendall(b"no record of TLS")
    into = memoryview(bytearray(len(BODY)))
    with pytest.raises(ssl.SSLError):
        server.connection.read_into(into)
    with pytest.raises(TimeoutError):
        other.connection.read_into(into)
    other.sock.sendall(other.encrypt(BODY))
    assert other.connection.read_into(into) == len(BODY)
    other.close()


def test_what_was_read_ahead_and_not_asked_for_is_seen(server: Server) -> None:
    server.begin()
    # One segment, so one recv(2): nothing of it is left in the socket.
    server.sock.sendall(server.encrypt(BODY[: 2 * RECORD]) + server.encrypt(b"more"))
    into = memoryview(bytearray(2 * RECORD))
    assert server.connection.read_into(into) == len(into)
    assert server.connection.is_stale()


def test_a_head_in_two_records_that_were_read_ahead_is_seen(server: Server) -> None:
    server.begin()
    server.sock.sendall(server.encrypt(BODY))
    into = memoryview(bytearray(len(BODY)))
    assert server.connection.read_into(into) == len(BODY)
    server.connection.set_blocking(blocking=False)
    server.connection.send(b"GET")
    # One segment, so one recv(2): nothing of the second is left in the socket.
    server.sock.sendall(server.encrypt(HEAD[:10]) + server.encrypt(HEAD[10:]))
    select.select([server.connection], [], [])
    head = server.connection.poll_head()
    assert head is not None
    assert head.status == 206


def test_where_the_ssl_object_is_not_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sock = server.connection._tls
    assert sock is not None

    def found() -> bool:
        records = open_records(sock)
        if records is not None:
            records.close()
        return isinstance(records, Records)

    assert found()
    with monkeypatch.context() as patch:
        patch.setattr(sock, "_context", ssl.create_default_context())
        assert not found()
    with monkeypatch.context() as patch:
        patch.setattr(sock, "_sslobj", object())
        assert not found()
    assert found()
    sock.close()
    assert not found()
