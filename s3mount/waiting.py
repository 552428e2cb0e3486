"""Waiting for a while that a machine which stands still does not use up.

A virtual machine may stand still for a second, and so may a process that is out of memory:
all time-outs are over then, though nobody was too late. Where giving up costs more than
waiting on, the while is counted in parts of which a stall takes one.
"""

from __future__ import annotations

import trio

PARTS = 20


async def come(event: trio.Event, seconds: float) -> bool:
    """Whether the event comes within so many seconds."""
    for _ in range(PARTS):
        with trio.move_on_after(seconds / PARTS):
            await event.wait()
            return True
    return event.is_set()
