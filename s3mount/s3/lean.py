"""`Bucket` without botocore's machinery per call: the hot requests, and nothing else.

A GET through boto3 costs a millisecond of CPU, which is all there is to a small file, and
which holds up every other thread. Here it costs a fifth of that, and a body goes from the
socket into the caller's buffers without a copy.

botocore says where to send (`endpoint`) and who we are (`signing`); `wire` speaks HTTP;
`lines` read the bodies, and `workers` all else and what is long over TLS, which takes longer to
decrypt than to copy; `replies`, `xml` and `errors` judge the answers, as they do for `client`. An
answer that is neither plain nor an error, such as a temporary redirect, is left to `client`: the
request is sent again by boto3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from s3mount.errors import BadReply, RequestError
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.client import second_look
from s3mount.s3.endpoint import Endpoint
from s3mount.s3.errors import (
    BodyInterrupted,
    Place,
    Refusal,
    bucket_missing,
    from_exception,
    from_refusal,
)
from s3mount.s3.lines import Lines, OddAnswer
from s3mount.s3.replies import Asked, check_head, check_range
from s3mount.s3.signing import Headers, Signer
from s3mount.s3.wire import ClosedEarly, Connection, Head
from s3mount.s3.workers import Abandoned, Job, Workers
from s3mount.s3.xml import error_fields, page_of

T = TypeVar("T")

# Bytes of a body that no thread is woken for: a sector, or a small file.
SMALL = 128 * 1024


class _NotPlain(Exception):
    """An answer that only botocore knows what to do with."""


class _Writer:
    """Writes requests to one endpoint: pure but for the clock and the credentials."""

    def __init__(self, endpoint: Endpoint, signer: Signer) -> None:
        self._signer = signer
        self._path = endpoint.path
        self._common: Headers = [("host", endpoint.host), *endpoint.headers]
        self._rest = f"user-agent: {endpoint.user_agent}\r\naccept-encoding: identity\r\n\r\n"

    def request(self, method: str, key: str, query: str, headers: Headers) -> bytes:
        """A whole request, signed. `query` is sorted and percent-encoded."""
        path = f"{self._path}/{quote(key, safe='/')}" if key else self._path or "/"
        signed = self._signer.sign(method, path, query, [*self._common, *headers])
        target = f"{path}?{query}" if query else path
        lines = "".join([f"{name}: {value}\r\n" for name, value in signed])
        return f"{method} {target} HTTP/1.1\r\n{lines}{self._rest}".encode("latin-1")


class _Request(Job[T]):
    """What the three kinds of request have in common."""

    def __init__(self, writer: _Writer, place: Place, what: str) -> None:
        super().__init__()
        self.writer = writer
        self.place = place
        self.what = what

    def refuse(self, connection: Connection, head: Head, body: bool = True) -> RequestError:
        """The error that an answer of 3xx, 4xx, 5xx means."""
        if head.status in {302, 303, 307}:
            raise _NotPlain
        fields = error_fields(connection.read_text(head)) if body else {}
        self.whole = True
        code, message = fields.get("Code", ""), fields.get("Message", "")
        refusal = Refusal(self.what, head.status, code, message, fields, head.headers)
        return from_refusal(refusal, self.place)


class _HeadRequest(_Request[ObjectInfo]):
    def __init__(self, writer: _Writer, place: Place, key: str) -> None:
        super().__init__(writer, place, f"HEAD of {key!r}")
        self._key = key

    def request(self) -> bytes:
        return self.writer.request("HEAD", self._key, "", [])

    def receive(
        self, connection: Connection, head: Head, tell: Callable[[int], None]
    ) -> ObjectInfo:
        if head.status >= 300:
            raise self.refuse(connection, head, body=False)
        self.whole = True
        return check_head(head.status, head.headers, self._key)


class _ListRequest(_Request[ListPage]):
    def __init__(self, writer: _Writer, place: Place, prefix: str, query: str) -> None:
        super().__init__(writer, place, f"the listing of {prefix!r}")
        self._query = query

    def request(self) -> bytes:
        return self.writer.request("GET", "", self._query, [])

    def receive(self, connection: Connection, head: Head, tell: Callable[[int], None]) -> ListPage:
        if head.status >= 300:
            raise bucket_missing(self.refuse(connection, head), self.place)
        if head.status != 200:
            raise BadReply(f"the answer to {self.what} is a status {head.status}")
        text = connection.read_text(head)
        self.whole = True
        return page_of(text, self.what)


class _RangeRequest(_Request[RangeReply]):
    def __init__(
        self,
        writer: _Writer,
        place: Place,
        asked: Asked,
        into: Sequence[memoryview],
        on_filled: OnFilled | None,
    ) -> None:
        super().__init__(writer, place, f"GET of {asked.key!r}")
        self._asked = asked
        self._into = into
        self.on_filled = on_filled
        self.received = 0
        # Of an answer that is read piece by piece:
        self._head: Head | None = None
        self._info: ObjectInfo | None = None
        self._length = self._index = self._filled = 0

    def request(self) -> bytes:
        asked = self._asked
        headers = [("range", asked.header)]
        if asked.etag is not None:
            headers.append(("if-match", asked.etag))
        query = f"versionId={quote(asked.version_id, safe='')}" if asked.version_id else ""
        return self.writer.request("GET", asked.key, query, headers)

    def on_told(self, index: int) -> None:
        if self.on_filled is not None:
            self.on_filled(index)

    def receive(
        self, connection: Connection, head: Head, tell: Callable[[int], None]
    ) -> RangeReply:
        if head.status >= 300:
            raise self.refuse(connection, head)
        info, length = check_range(head.status, head.headers, self._asked)
        self.begin_writing()
        try:
            self._fill(connection, length, tell)
        except OSError as error:
            raise self._interrupted(error, info) from error
        self.whole = True
        return RangeReply(info, length)

    def _interrupted(self, error: OSError, info: ObjectInfo) -> BodyInterrupted:
        cause = from_exception(error, self.what, self.place).cause
        told = f"the body of {self._asked.key!r} broke off after {self.received} bytes: {cause}"
        return BodyInterrupted(told, received=self.received, info=info)

    # --- piece by piece -----------------------------------------------------------

    def begin(self) -> None:
        """See `Ask`."""
        self._head = self._info = None
        self.received = self._index = self._filled = 0

    @property
    def is_long(self) -> bool:
        """See `Ask`."""
        return self._asked.size > SMALL

    def advance(self, connection: Connection, tell: Callable[[int], None]) -> bool:
        """See `Ask`."""
        if self._head is None:
            head = connection.poll_head()
            if head is None:
                return False
            self._head = head
            if head.status != 206:
                raise OddAnswer(head)
            self._info, self._length = check_range(head.status, head.headers, self._asked)
        try:
            self.whole = self._pour(connection, tell)
        except OSError as error:
            raise self.failure(error) from error
        return self.whole

    def failure(self, error: OSError) -> Exception:
        """See `Ask`."""
        return error if self._info is None else self._interrupted(error, self._info)

    @property
    def keep(self) -> bool:
        """See `Ask`."""
        return self.whole and self._head is not None and self._head.keep_alive

    @property
    def result(self) -> RangeReply:
        """See `Ask`."""
        assert self._info is not None
        return RangeReply(self._info, self._length)

    def _pour(self, connection: Connection, tell: Callable[[int], None]) -> bool:
        """Read what is there of the body into the buffers; whether it is whole."""
        while True:
            buffer = self._into[self._index]
            stop = min(len(buffer), self._filled + self._length - self.received)
            count = connection.poll_into(buffer[self._filled : stop])
            if count is None:
                return False
            if not count:
                raise ClosedEarly("it ended early")
            self.received += count
            self._filled += count
            if self._filled == stop:
                tell(self._index)
                self._index, self._filled = self._index + 1, 0
                if self.received == self._length:
                    return True

    # --- in a worker's thread -----------------------------------------------------

    def _fill(self, connection: Connection, length: int, tell: Callable[[int], None]) -> None:
        """Read the body into the buffers, and tell of each as it is whole."""
        for index, buffer in enumerate(self._into):
            rest = buffer[: length - self.received]
            while rest:
                count = connection.read_into(rest)
                if not count:
                    raise ClosedEarly("it ended early")
                self.received += count
                rest = rest[count:]
            tell(index)
            if self.received == length:
                return


class LeanBucket:
    """See the module, and `Bucket` for the methods. Made on the trio thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        signer: Signer,
        workers: Workers,
        *,
        otherwise: Bucket,
        metrics: Metrics,
        place: Place,
    ) -> None:
        self._writer = _Writer(endpoint, signer)
        self._signer = signer
        self._workers = workers
        self._tls = workers.address.tls
        self._lines = Lines(
            workers.address, free=workers.free, borrow=workers.lend, timeout=workers.timeout
        )
        workers.borrow = self._lines.lend
        self._otherwise = otherwise
        self._metrics = metrics
        self._place = place

    def __repr__(self) -> str:
        return f"<LeanBucket {self._place.bucket} {self._workers!r}>"

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        job = _HeadRequest(self._writer, self._place, key)
        return await self._run("head", job, lambda: self._otherwise.head(key))

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        """See `Bucket.list_page`."""
        # In the order that the signature wants.
        query = {
            "continuation-token": token or "",
            "delimiter": delimiter,
            "encoding-type": "url",
            "list-type": "2",
            "max-keys": str(max_keys),
            "prefix": prefix,
            "start-after": "" if token else start_after,
        }
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
        job = _ListRequest(self._writer, self._place, prefix, text)
        return await self._run(
            "list",
            job,
            lambda: self._otherwise.list_page(
                prefix,
                delimiter=delimiter,
                start_after=start_after,
                token=token,
                max_keys=max_keys,
            ),
        )

    async def get_range(
        self,
        key: str,
        start: int,
        into: Sequence[memoryview],
        *,
        etag: str | None,
        version_id: str | None = None,
        on_filled: OnFilled | None = None,
    ) -> RangeReply:
        """See `Bucket.get_range`."""
        asked = Asked(key, start, sum(map(len, into)), etag, version_id)
        job = _RangeRequest(self._writer, self._place, asked, into, on_filled)
        by_line = not (job.is_long and self._tls) and not self._signer.may_block()
        try:
            return await self._run(
                "get",
                job,
                lambda: self._otherwise.get_range(
                    key, start, into, etag=etag, version_id=version_id, on_filled=on_filled
                ),
                self._lines.run if by_line else None,
            )
        except RequestError as error:
            return await second_look(self, asked, error)
        finally:
            self._metrics.count("bytes.fetched", job.received)

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        await self._lines.aclose()
        await self._workers.aclose()
        await self._otherwise.aclose()

    async def _run(
        self,
        kind: str,
        job: _Request[T],
        otherwise: Callable[[], Awaitable[T]],
        send: Callable[[Any], Awaitable[T]] | None = None,
    ) -> T:
        self._metrics.count(f"requests.{kind}")
        try:
            return await (send or self._workers.run)(job)
        except RequestError:
            raise
        except (_NotPlain, Abandoned):
            pass
        except Exception as error:
            raise from_exception(error, job.what, self._place) from error
        return await otherwise()
