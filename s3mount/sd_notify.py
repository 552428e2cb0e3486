"""sd_notify(3) in a few lines: tells systemd (or whoever listens) how the service fares.

The protocol: one datagram of `NAME=value` lines to the AF_UNIX socket that the
environment variable NOTIFY_SOCKET names. A leading "@" stands for the NUL of an abstract
address. Must not know: the environment.
"""

from __future__ import annotations

import socket


def notify(address: str | None, state: str) -> bool:
    """Send `state` ("READY=1"); whether it was sent.

    `address` is the value of NOTIFY_SOCKET, None when nobody listens. A listener that is
    gone is no reason to fail.
    """
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError:
        return False
    return True
