"""What requests cost: S3 Standard, us-east-1, https://aws.amazon.com/s3/pricing/."""

from __future__ import annotations

from collections.abc import Mapping

DOLLARS: Mapping[str, float] = {
    "LIST": 0.005 / 1000,
    "PUT": 0.005 / 1000,
    # COPY and the POSTs of a multipart upload are priced as PUT; DeleteObjects is free, rare here.
    "POST": 0.005 / 1000,
    "GET": 0.0004 / 1000,
    "HEAD": 0.0004 / 1000,
    "DELETE": 0.0,
}
"""Per request. Traffic to a machine of the same region costs nothing."""


def dollars(requests: Mapping[str, int]) -> float:
    """The price of these requests, by kind; kinds without a price cost nothing."""
    return sum(DOLLARS.get(kind, 0.0) * number for kind, number in requests.items())
