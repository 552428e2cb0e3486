"""Fills whole buffers over TLS, where Python's `ssl` hands out one record after the other.

A record holds 16 KiB at the most. `SSLSocket.recv_into` returns after each, and each leaves and
takes Python's lock, 65,536 times per GiB and late when others want it; and OpenSSL asks the
kernel twice for each, first for its 5 bytes of head. OpenSSL knows better: its `BIO_f_buffer`
over `BIO_f_ssl` reads on until a large buffer is full, and when it reads ahead, one recv(2)
brings as many records as are there. They are called by ctypes, which takes the lock once.

The connection is still that of `ssl`: it shakes hands, verifies whom it talks to, and writes.
It does not tell where its SSL object is: in a field of `_ssl._SSLSocket`, between two others
that can be known. `open_records` takes it where both are what they must be and the SSL object
has the socket's descriptor, and gives None where anything differs (another Python, OpenSSL
linked in): then records are read one by one.

Knows no HTTP, no time-outs but the socket's own.
"""

from __future__ import annotations

import _ssl
import ctypes
import functools
import os
import ssl
import weakref
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ulong, c_void_p
from typing import Any, NamedTuple

# What `BIO_f_buffer` has of its own: shorter reads would leave the rest of a record there,
# where `SSLSocket` does not find it.
LEAST = 4096
# Bytes that one recv(2) may bring: four records. 2.17 s of CPU per GiB instead of 2.45; twice as
# many 2.08, for 4 MiB more with 64 connections.
AHEAD = 64 * 1024

# Of openssl/bio.h.
BIO_C_SET_SSL = 109
BIO_NOCLOSE = 0
BIO_FLAGS_SHOULD_RETRY = 8
# Of openssl/err.h and openssl/sslerr.h: closed without a word, which `ssl` too takes for the end.
ERR_REASON_MASK = 0x7FFFFF
SSL_R_UNEXPECTED_EOF_WHILE_READING = 294

_WAITS: dict[str, tuple[Any, list[Any]]] = {"BIO_read": (c_int, [c_void_p, c_void_p, c_int])}
_WAITS_NOT: dict[str, tuple[Any, list[Any]]] = {
    "BIO_ctrl": (c_long, [c_void_p, c_int, c_long, c_void_p]),
    "BIO_f_buffer": (c_void_p, []),
    "BIO_f_ssl": (c_void_p, []),
    "BIO_free_all": (None, [c_void_p]),
    "BIO_new": (c_void_p, [c_void_p]),
    "BIO_push": (c_void_p, [c_void_p, c_void_p]),
    "BIO_test_flags": (c_int, [c_void_p, c_int]),
    "ERR_clear_error": (None, []),
    "ERR_get_error": (c_ulong, []),
    "ERR_reason_error_string": (c_char_p, [c_ulong]),
    "SSL_get_fd": (c_int, [c_void_p]),
    "SSL_has_pending": (c_int, [c_void_p]),
    "SSL_set_default_read_buffer_len": (None, [c_void_p, c_size_t]),
    "SSL_set_quiet_shutdown": (None, [c_void_p, c_int]),
    "SSL_set_read_ahead": (None, [c_void_p, c_int]),
}


class _OpenSSL(NamedTuple):
    """The library that `ssl` uses."""

    slow: ctypes.CDLL  # without Python's lock
    quick: ctypes.PyDLL  # what never waits keeps it: to have it back takes up to 0.2 ms


class Records:
    """The records that come over one connection; used by its thread, closed before its socket."""

    def __init__(self, openssl: _OpenSSL, pointer: int, owner: object) -> None:
        """`owner` keeps the SSL object at `pointer` alive."""
        quick = openssl.quick
        self._owner = owner
        self._pointer = pointer
        self._quick = quick
        self._read = openssl.slow.BIO_read
        self._failure: OSError | None = None  # to be told once what came before it was
        quick.SSL_set_default_read_buffer_len(pointer, AHEAD)
        quick.SSL_set_read_ahead(pointer, 1)
        # Or freeing what is made here would send the other side a word of farewell.
        quick.SSL_set_quiet_shutdown(pointer, 1)
        source = quick.BIO_new(quick.BIO_f_ssl())
        quick.BIO_ctrl(source, BIO_C_SET_SSL, BIO_NOCLOSE, pointer)
        self._chain = quick.BIO_push(quick.BIO_new(quick.BIO_f_buffer()), source)

    def close(self) -> None:
        """Free what was made; the SSL object is its owner's."""
        chain, self._chain = self._chain, None
        self._quick.BIO_free_all(chain)

    @property
    def is_pending(self) -> bool:
        """Whether something came that nobody has read."""
        return bool(self._quick.SSL_has_pending(self._pointer))

    def read_into(self, view: memoryview) -> int:
        """Fill `view`, which is longer than `LEAST`: less at the end, or at a time-out; 0: the end.

        The socket blocks. Raises `BlockingIOError` when its time-out passes without a byte.
        """
        if self._failure is not None:
            raise self._failure
        # OpenSSL keeps errors for each thread, and takes an old one for that of the next call.
        self._quick.ERR_clear_error()
        ctypes.set_errno(0)
        into = ctypes.byref(ctypes.c_char.from_buffer(view))
        received: int = self._read(self._chain, into, len(view))
        if received == len(view):
            return received
        if self._quick.BIO_test_flags(self._chain, BIO_FLAGS_SHOULD_RETRY):
            if received <= 0:
                raise BlockingIOError
            return received
        self._failure = self._why()
        if received <= 0 and self._failure is not None:
            raise self._failure
        return max(received, 0)

    def _why(self) -> OSError | None:
        """What ended the last read; None: the other side closed the connection."""
        errno = ctypes.get_errno()
        code = self._quick.ERR_get_error()
        if code & ERR_REASON_MASK == SSL_R_UNEXPECTED_EOF_WHILE_READING:
            return None
        if code:
            reason = self._quick.ERR_reason_error_string(code) or b"unknown error"
            return ssl.SSLError(reason.decode())
        return OSError(errno, os.strerror(errno)) if errno else None


def open_records(sock: ssl.SSLSocket) -> Records | None:
    """The records of a connected socket; None when they cannot be had."""
    openssl = _openssl()
    owner = getattr(sock, "_sslobj", None)
    # typeshed does not tell of the class.
    if openssl is None or type(owner) is not _ssl._SSLSocket:  # type: ignore[attr-defined]
        return None
    head, word = object.__basicsize__, ctypes.sizeof(c_void_p)
    if type(owner).__basicsize__ < head + 3 * word:
        return None
    reference, pointer, context = (c_void_p * 3).from_address(id(owner) + head)
    if reference != id(weakref.ref(sock)) or context != id(sock.context) or not pointer:
        return None
    if openssl.quick.SSL_get_fd(pointer) != sock.fileno():
        return None
    return Records(openssl, pointer, owner)


@functools.cache
def _openssl() -> _OpenSSL | None:
    try:
        # What a module is linked with is found through it: no other copy of the library.
        openssl = _OpenSSL(ctypes.CDLL(_ssl.__file__, use_errno=True), ctypes.PyDLL(_ssl.__file__))
        for library, functions in ((openssl.slow, _WAITS), (openssl.quick, _WAITS_NOT)):
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return openssl
