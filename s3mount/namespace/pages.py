"""Where to begin a page of a listing, so that it tells of a position from its start on.

Pure: makes strings of strings.
"""

from __future__ import annotations

from s3mount.namespace.known import START, after
from s3mount.namespace.listing import DELIMITER


def from_name(name: str) -> str:
    """The position from which a page is asked for that begins with `name`, or just before."""
    return after(just_before(name))


def start_after(prefix: str, lo: str) -> str:
    """What to send as start-after so that the answer begins at `lo`; "" at the start."""
    if lo == START:
        return ""
    return prefix + (lo[:-1] if lo.endswith("\0") else just_before(lo))


def just_before(position: str) -> str:
    """A string a little less than `position`, with few or no keys between the two.

    It is sent to S3 as start-after, so it holds no odd characters: the last one's
    neighbour, and then the greatest ones of ASCII. Any string less than `position` is
    right; a nearer one only wastes less of the page.
    """
    head, last = position[:-1], ord(position[-1])
    below = last - 1
    if chr(below) == DELIMITER:
        below -= 1  # within "head/..." servers differ in how they roll up the rest
    # Control characters, surrogates, and what XML cannot hold: servers send start-after back.
    if below < 0x20 or 0xD800 <= below <= 0xDFFF or below in (0xFFFE, 0xFFFF):
        return head
    return head + chr(below) + "~~~~"
