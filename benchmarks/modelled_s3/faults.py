"""What can be made to go wrong with an answer of the modelled S3.

Plain values; `faults.lua` decides which request is struck, `s3.lua` how.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode


class FaultKind(StrEnum):
    """What happens to a request that is struck."""

    SLOW_DOWN = "slow_down"
    """503 SlowDown."""
    INTERNAL_ERROR = "internal_error"
    """500 InternalError."""
    FORBIDDEN = "forbidden"
    """403 AccessDenied."""
    RESET = "reset"
    """The connection is reset before anything is answered."""
    NEVER_ANSWER = "never_answer"
    """The request is accepted and never answered."""
    DELAY = "delay"
    """The answer begins `seconds` later."""
    HTML = "html"
    """200 with an HTML page, as a captive portal gives."""
    RESET_BODY = "reset_body"
    """The connection is reset after `after` bytes of the body."""
    STALL = "stall"
    """The body stops after `after` bytes, for ever; the connection stays."""
    EARLY_END = "early_end"
    """The connection is closed in good order after `after` bytes of the body."""
    SLOW_DRIP = "slow_drip"
    """The body comes at `rate` bytes/s."""
    WHOLE_OBJECT = "whole_object"
    """GET: the range is ignored; 200 with the whole object."""
    WRONG_RANGE = "wrong_range"
    """GET: 206 with another range, and a Content-Range that says so."""
    WRONG_ETAG = "wrong_etag"
    """GET: the right bytes under another ETag."""
    TRUNCATED_XML = "truncated_xml"
    """LIST: half of the XML, as if it were all."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A share of the requests of one kind, and what happens to them."""

    kind: FaultKind
    share: float = 1.0
    """Of the requests that `op` and `key` select, in [0, 1]."""
    op: str = "GET"
    """GET (of an object), HEAD, LIST, PUT, POST, DELETE or ANY."""
    key: str | None = None
    """Only objects whose key holds this."""
    skip: int = 0
    """The first requests so selected are spared."""
    count: int | None = None
    """No more than this many are struck."""
    after: int = 64 * 1024
    """Bytes of the body sent before it breaks off; always fewer than all of them."""
    seconds: float = 1.0
    rate: int = 2048

    def encoded(self) -> str:
        """As `faults.lua` reads it."""
        fields: dict[str, object] = {
            "kind": self.kind.value,
            "share": self.share,
            "op": self.op,
            "skip": self.skip,
            "after": self.after,
            "seconds": self.seconds,
            "rate": self.rate,
        }
        if self.key is not None:
            fields["key"] = self.key
        if self.count is not None:
            fields["count"] = self.count
        return urlencode(fields)
