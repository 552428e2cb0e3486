"""The modelled S3 answers at the pace and with the faults that were ordered, and counts."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import pytest

from benchmarks.modelled_s3 import Fault, FaultKind, ModelledS3
from benchmarks.tests.asking import Answer

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BODY = bytes(range(256)) * 1024  # 256 KiB


def test_latency_and_rate_are_at_least_those_set(server: ModelledS3) -> None:
    # Only the lower bounds: how much longer it takes is the machine's affair.
    server.put("bucket", "slow", BODY * 16)  # 4 MiB
    server.set_model(ttfb=0.03, rate=20_000_000)
    start = time.perf_counter()
    assert Answer(server, "/bucket/slow", Range="bytes=0-0").status == 206
    assert time.perf_counter() - start >= 0.03
    start = time.perf_counter()
    assert len(Answer(server, "/bucket/slow").body) == 4 << 20
    # The last of four chunks of 1 MiB is not waited for: 3 MiB at 20 MB/s are 157 ms.
    assert time.perf_counter() - start >= 0.17


def test_requests_are_counted_by_kind(server: ModelledS3, client: S3Client) -> None:
    client.put_object(Bucket="bucket", Key="counted", Body=BODY)
    client.get_object(Bucket="bucket", Key="counted", Range="bytes=0-99")["Body"].read()
    client.head_object(Bucket="bucket", Key="counted")
    before = server.counts()
    asked = {kind: number for kind, number in before.requests.items() if number}
    assert asked == {"GET": 1, "HEAD": 1, "PUT": 1}
    assert before.bytes_sent == 100
    assert before.bytes_received > len(BODY)
    client.list_objects_v2(Bucket="bucket")
    client.delete_object(Bucket="bucket", Key="counted")
    after = server.counts()
    assert (after["LIST"], after["DELETE"], after.total, after.in_flight) == (1, 1, 5, 0)
    server.reset_counts()
    assert server.counts().total == 0
    assert any(line.startswith("GET 206 100 ") for line in server.log())


RANGE = "bytes=1000-200999"
ASKED = BODY[1000:201000]


def struck(server: ModelledS3, fault: Fault, timeout: float = 5) -> Answer:
    """A ranged GET that the fault strikes."""
    server.put("bucket", "fault", BODY)
    server.set_faults(fault)
    answer = Answer(server, "/bucket/fault", timeout, Range=RANGE)
    assert server.counts(settle=0.2).faults == {fault.kind.value: 1}
    return answer


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.SLOW_DOWN, 503, b"<Code>SlowDown</Code>"),
        (FaultKind.INTERNAL_ERROR, 500, b"<Code>InternalError</Code>"),
        (FaultKind.FORBIDDEN, 403, b"<Code>AccessDenied</Code>"),
        (FaultKind.HTML, 200, b"<!DOCTYPE html>"),
    ],
)
def test_faults_with_a_status(
    server: ModelledS3, kind: FaultKind, status: int, code: bytes
) -> None:
    answer = struck(server, Fault(kind))
    assert (answer.status, answer.error) == (status, None)
    assert code in answer.body


def test_reset_before_the_answer(server: ModelledS3) -> None:
    assert isinstance(struck(server, Fault(FaultKind.RESET)).error, ConnectionResetError)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.RESET_BODY, ConnectionResetError),
        (FaultKind.EARLY_END, http.client.IncompleteRead),
        (FaultKind.STALL, TimeoutError),
    ],
)
def test_bodies_that_break(server: ModelledS3, kind: FaultKind, error: type[Exception]) -> None:
    answer = struck(server, Fault(kind, after=70_000), timeout=2)
    assert isinstance(answer.error, error)
    assert answer.status == 206
    assert ASKED.startswith(answer.body)
    # A reset may overtake what was sent before it.
    assert len(answer.body) == 70_000 or kind is FaultKind.RESET_BODY


def test_a_short_body_breaks_before_its_end(server: ModelledS3) -> None:
    server.put("bucket", "short", b"0123456789")
    server.set_faults(Fault(FaultKind.EARLY_END))
    assert Answer(server, "/bucket/short").body == b"012345678"


def test_slow_drip(server: ModelledS3) -> None:
    answer = struck(server, Fault(FaultKind.SLOW_DRIP, rate=4096), timeout=0.5)
    assert isinstance(answer.error, TimeoutError)
    assert 0 < len(answer.body) <= 3 * 4096


def test_never_answer_and_delay(server: ModelledS3) -> None:
    answer = struck(server, Fault(FaultKind.NEVER_ANSWER), timeout=0.2)
    assert isinstance(answer.error, TimeoutError)
    server.reset_counts()
    start = time.perf_counter()
    assert struck(server, Fault(FaultKind.DELAY, seconds=0.15)).body == ASKED
    assert time.perf_counter() - start >= 0.15


def test_answers_that_lie(server: ModelledS3) -> None:
    etag = server.put("bucket", "fault", BODY)
    whole = struck(server, Fault(FaultKind.WHOLE_OBJECT))
    assert (whole.status, whole.body) == (200, BODY)
    server.reset_counts()
    other = struck(server, Fault(FaultKind.WRONG_RANGE))
    assert other.headers is not None
    assert (other.status, other.headers["ETag"]) == (206, f'"{etag}"')
    assert other.headers["Content-Range"] == f"bytes 62144-262143/{len(BODY)}"
    assert other.body == BODY[62144:]
    server.reset_counts()
    tag = struck(server, Fault(FaultKind.WRONG_ETAG))
    assert tag.headers is not None
    assert (tag.status, tag.headers["ETag"]) == (206, '"' + "0" * 32 + '"')
    assert tag.body == ASKED
    server.clear_faults()
    right = Answer(server, "/bucket/fault", Range=RANGE)
    assert right.headers is not None
    assert right.headers["ETag"] == f'"{etag}"'


def test_a_page_of_html_comes_whatever_the_condition(server: ModelledS3) -> None:
    server.put("bucket", "fault", BODY)
    server.set_faults(Fault(FaultKind.HTML))
    headers = {"Range": RANGE, "If-Match": '"other"'}
    answer = Answer(server, "/bucket/fault", 5, **headers)
    assert (answer.status, answer.body[:15]) == (200, b"<!DOCTYPE html>")


@pytest.mark.parametrize("asked", ["bytes=0-262143", "bytes=0-0", "bytes=262143-", "bytes=5-9"])
def test_the_wrong_range_is_another_one(server: ModelledS3, asked: str) -> None:
    server.put("bucket", "fault", BODY)
    right = Answer(server, "/bucket/fault", Range=asked)
    server.set_faults(Fault(FaultKind.WRONG_RANGE))
    wrong = Answer(server, "/bucket/fault", Range=asked)
    assert right.headers is not None
    assert wrong.headers is not None
    assert (right.status, wrong.status) == (206, 206)
    assert right.headers["Content-Range"] != wrong.headers["Content-Range"]


def test_a_listing_cut_short(server: ModelledS3) -> None:
    server.put("bucket", "fault", BODY)
    server.set_faults(Fault(FaultKind.TRUNCATED_XML, op="LIST"))
    answer = Answer(server, "/bucket?list-type=2")
    assert (answer.status, answer.error) == (200, None)
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(answer.body)


def test_faults_strike_their_share_in_the_same_order(server: ModelledS3) -> None:
    server.put("bucket", "fault", b"x")
    faults = [
        Fault(FaultKind.SLOW_DOWN, share=0.3, count=40),
        Fault(FaultKind.INTERNAL_ERROR, share=0.2, skip=10),
    ]

    def statuses(seed: int) -> list[int]:
        server.set_faults(*faults, seed=seed)
        return [Answer(server, "/bucket/fault").status for _ in range(300)]

    first = statuses(1)
    assert statuses(1) == first
    assert statuses(2) != first
    assert first.count(503) == 40
    assert 35 <= first.count(500) <= 85
    assert 500 not in first[:10]


def test_faults_are_for_the_requests_they_name(server: ModelledS3) -> None:
    server.put_many("bucket", {"good": b"1", "bad one": b"2"})
    server.set_faults(Fault(FaultKind.SLOW_DOWN, key="bad"))
    assert Answer(server, "/bucket/good").status == 200
    assert Answer(server, "/bucket/" + quote("bad one")).status == 503
    assert Answer(server, "/bucket?list-type=2").status == 200
    assert urlopen(Request(server.endpoint_url + "/bucket/bad%20one", method="HEAD")).status == 200


def test_a_hanging_endpoint_comes_back(server: ModelledS3) -> None:
    server.put("bucket", "fault", b"x")
    server.hang(2.0)
    assert isinstance(Answer(server, "/bucket/fault", timeout=0.1).error, TimeoutError)
    assert isinstance(Answer(server, "/bucket/fault", timeout=2.1).error, TimeoutError)
    assert Answer(server, "/bucket/fault").body == b"x"


def test_it_leaves_nothing_behind() -> None:
    with ModelledS3(ttfb=0) as server:
        directory = server.directory
        server.put("bucket", "a", b"x")
        assert Answer(server, "/bucket/a").body == b"x"
    assert not directory.exists()
    assert Answer(server, "/bucket/a").error is not None
