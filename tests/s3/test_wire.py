"""One connection: answers in any pieces, and what is no answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from s3mount.s3 import wire
from s3mount.s3.wire import SCRATCH, Address, ClosedEarly, Connection, NotHttp
from tests.servers import Certificate


class Peer:
    """The other end: sends what it is told, piece by piece."""

    def __init__(self, certificate: Certificate | None) -> None:
        self._certificate = certificate
        self._listener = socket.create_server(("127.0.0.1", 0))
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        context = ssl.create_default_context(cafile=certificate.ca) if certificate else None
        address = Address("127.0.0.1", self._listener.getsockname()[1], context)
        self.connection = Connection(address, 0.5, bytearray(SCRATCH))
        accepting.join()
        self._threads: list[threading.Thread] = []

    def _accept(self) -> None:
        self._sock, _ = self._listener.accept()
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.num_tickets = 0
            context.load_cert_chain(self._certificate.cert, self._certificate.key)
            self._sock = context.wrap_socket(self._sock, server_side=True)

    def send(self, data: bytes, *, piece: int = 1 << 20, end: bool = False) -> None:
        def run() -> None:
            # Who has read enough may be gone before all is sent.
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                for at in range(0, len(data), piece):
                    self._sock.sendall(data[at : at + piece])
                if end:
                    socket.socket.shutdown(self._sock, socket.SHUT_WR)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        self.connection.close()
        self._sock.close()
        self._listener.close()


@pytest.fixture(params=["plain", "tls", "tls, record by record"])
def peer(
    request: pytest.FixtureRequest, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Peer]:
    if request.param == "tls, record by record":
        monkeypatch.setattr(wire, "open_records", lambda _: None)
    peer = Peer(None if request.param == "plain" else certificate)
    yield peer
    peer.close()


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_an_answer_in_pieces(peer: Peer, piece: int) -> None:
    body = bytes(range(256)) * 20
    answer = b"HTTP/1.1 206 Partial Content\r\nA:  b \r\nContent-Length: 5120\r\n\r\n" + body
    peer.send(answer, piece=piece)
    head = peer.connection.read_head()
    assert (head.status, head.headers["a"], head.keep_alive) == (206, "b", True)
    into = memoryview(bytearray(len(body)))
    done = 0
    while done < len(body):
        done += peer.connection.read_into(into[done:])
    assert bytes(into) == body
    assert not peer.connection.is_stale()


@pytest.mark.parametrize(
    ("first", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
    ],
)
def test_whether_the_connection_stays(peer: Peer, first: bytes, keep_alive: bool) -> None:
    peer.send(first + b"\r\n\r\n")
    head = peer.connection.read_head()
    assert (head.status, head.keep_alive) == (200, keep_alive)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * SCRATCH,
    ],
)
def test_what_is_no_head(peer: Peer, answer: bytes) -> None:
    peer.send(answer)
    with pytest.raises(NotHttp):
        peer.connection.read_head()


def test_an_end_before_the_head(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 20", end=True)
    with pytest.raises(ClosedEarly):
        peer.connection.read_head()
    assert peer.connection.heard


def test_silence(peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        peer.connection.read_head()
    assert not peer.connection.heard


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
        (CHUNKED + b"0\r\nTrailer: 1\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"abcd"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_texts(peer: Peer, answer: bytes, text: bytes, piece: int) -> None:
    peer.send(answer, piece=piece)
    assert peer.connection.read_text(peer.connection.read_head()) == text
    assert not peer.connection.is_stale()


def test_a_text_until_the_end(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, end=True)
    assert peer.connection.read_text(peer.connection.read_head()) == b"x" * 200_000
    assert peer.connection.is_stale()


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"much\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"FFFFFFFF\r\n",
        CHUNKED + b"1" * 2000,
        b"HTTP/1.1 200 OK\r\nContent-Length: much\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (17 << 20),
    ],
    ids=["no size", "negative", "too large", "long line", "no length", "too long", "endless"],
)
def test_texts_that_are_none(peer: Peer, answer: bytes) -> None:
    peer.send(answer, end=True)
    head = peer.connection.read_head()
    with pytest.raises(NotHttp):
        peer.connection.read_text(head)
    peer.connection.shut_down()


@pytest.mark.parametrize(
    "answer",
    [CHUNKED + b"5\r\nab", CHUNKED + b"5", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"],
)
def test_texts_that_end_early(peer: Peer, answer: bytes) -> None:
    peer.send(answer, end=True)
    head = peer.connection.read_head()
    with pytest.raises(ClosedEarly):
        peer.connection.read_text(head)


def test_bytes_that_nobody_asked_for_are_seen(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore")
    peer.connection.read_text(peer.connection.read_head())
    assert peer.connection.is_stale()


def test_a_wait_is_ended_from_another_thread(peer: Peer) -> None:
    answers: list[int] = []
    peer.send(b"HTTP/1.1 200 OK\r\n\r\nab")
    peer.connection.read_head()
    into = memoryview(bytearray(10_000))
    while (count := peer.connection.read_into(into)) != 2:
        into = into[count:]
    thread = threading.Thread(target=lambda: answers.append(peer.connection.read_into(into)))
    thread.start()
    peer.connection.shut_down()
    peer.connection.shut_down()
    thread.join()
    assert answers == [0]
