"""`Bucket` over boto3: the general way, for whatever the lean one does not do.

Each call runs in a thread of trio's, where the whole body is read. A call that is
cancelled is left behind: its thread ends by itself, at the latest after the read
time-out, and can no longer touch the caller's buffers, for bytes are copied into them
under a lock that the cancellation takes too.

botocore's own retries are off (`Retrying` is the one policy), its redirects to a
bucket's region stay on, as they are no retries to it. Times in seconds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from os import listdir
from os.path import isdir
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.config
import botocore.loaders
import botocore.session
import trio
from botocore import UNSIGNED

from s3mount.config import Config
from s3mount.errors import (
    BadReply,
    Closed,
    RequestError,
    VersionChanged,
)
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.errors import BehindEnd, BodyInterrupted, Place, bucket_missing, from_exception
from s3mount.s3.replies import Asked, OtherETag, check_head, check_range, decoded

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef

T = TypeVar("T")

# What is copied at once: large enough to be cheap, small enough for a slow body to show
# progress, and for the lock to be short.
CHUNK = 64 * 1024


# The services, by the names in their host names, that are asked for objects or for credentials.
SERVICES = {"s3", "s3-control", "sts", "sso", "portal.sso", "oidc", "signin"}


class _Loader(botocore.loaders.Loader):
    """botocore's, without what is of no use here.

    It does not look for a model in each of 400 services, which takes 20 ms, and forgets where
    those that we do not ask have their endpoints, which takes 7 MiB.
    """

    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        """What the file of that name holds, and its path."""
        data: Any
        data, path = super().load_data_with_path(name)
        if name == "endpoints":
            for partition in data["partitions"]:
                services = partition["services"]
                partition["services"] = {n: services[n] for n in services if n in SERVICES}
        return data, path

    def list_available_services(self, type_name: str) -> list[str]:
        """The names of all, even of one that has nothing of this type."""
        return sorted({name for path in self.search_paths if isdir(path) for name in listdir(path)})


@cache
def _loader(data_path: str | None) -> botocore.loaders.Loader:
    """botocore's models of S3, read (in a tenth of a second) once and not for every client."""
    paths = botocore.loaders.create_loader(data_path).search_paths
    return _Loader(extra_search_paths=paths, include_default_search_paths=False)


def make_session(config: Config) -> botocore.session.Session:
    """A botocore session with the user's profile. Raises botocore's ProfileNotFound."""
    session = botocore.session.Session(profile=config.profile)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    # Credentials are read once per session, lazily; a profile that is missing shows here.
    session.get_scoped_config()
    return session


def make_client(config: Config, session: botocore.session.Session, region: str | None) -> S3Client:
    """A boto3 client as the options say. Raises what botocore raises; may block on DNS."""
    s3_options: dict[str, Any] = {
        "use_accelerate_endpoint": config.accelerate,
        "addressing_style": "path" if config.path_style else "auto",
    }
    options: dict[str, Any] = {
        "connect_timeout": config.read_timeout,
        "read_timeout": config.read_timeout,
        "max_pool_connections": config.max_connections,
        # total: the first try included.
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "s3": s3_options,
        # A ranged answer carries no checksum that could be validated, a whole one might.
        "response_checksum_validation": "when_required",
        "request_checksum_calculation": "when_required",
        "user_agent_extra": "s3mount",
    }
    # None leaves the word to AWS_USE_DUALSTACK_ENDPOINT and the profile.
    if config.dualstack:
        options["use_dualstack_endpoint"] = True
    if config.fips:
        options["use_fips_endpoint"] = True
    if config.no_sign_request:
        options["signature_version"] = UNSIGNED
    client: S3Client = boto3.session.Session(botocore_session=session).client(
        "s3",
        region_name=region,
        endpoint_url=config.endpoint_url,
        verify=str(config.ca_bundle) if config.ca_bundle else None,
        config=botocore.config.Config(**options),
    )
    return client


def common_parameters(config: Config) -> dict[str, Any]:
    """What every call carries: the bucket, its owner, who pays."""
    parameters: dict[str, Any] = {"Bucket": config.bucket}
    if config.expected_bucket_owner:
        parameters["ExpectedBucketOwner"] = config.expected_bucket_owner
    if config.requester_pays:
        parameters["RequestPayer"] = "requester"
    return parameters


async def second_look(bucket: Bucket, asked: Asked, error: RequestError) -> RangeReply:
    """What a HEAD makes of an `error` of a GET that can mean two things; raises, or answers.

    A 416 at the start of an object: no range fits an empty one, and the answer tells
    nothing of it. Another ETag than If-Match asked for: the server ignores If-Match and the
    object was replaced, or the answer is wrong and may be asked for again.
    """
    if isinstance(error, OtherETag):
        if (await bucket.head(asked.key)).etag == asked.etag:
            raise error
        raise VersionChanged(f"{asked.key!r} is no longer the version {asked.etag}") from error
    if isinstance(error, BehindEnd) and not asked.start:
        info = await bucket.head(asked.key)
        if not info.size and asked.etag in {None, info.etag}:
            return RangeReply(info, 0)
    raise error


class _Sink:
    """Where a thread puts a body: the caller's buffers, until the caller goes away."""

    def __init__(self, into: Sequence[memoryview], notify: Callable[[int], None]) -> None:
        self._into = into
        self._notify = notify
        self._lock = threading.Lock()
        self._abandoned = False
        self._index = 0
        self._offset = 0
        self.received = 0

    def abandon(self) -> None:
        """From now on, nothing is written."""
        with self._lock:
            self._abandoned = True

    def write(self, data: bytes) -> bool:
        """Copy, and tell of each buffer that became whole; False when abandoned."""
        view = memoryview(data)
        with self._lock:
            if self._abandoned:
                return False
            while view:
                buffer = self._into[self._index]
                part = view[: len(buffer) - self._offset]
                buffer[self._offset : self._offset + len(part)] = part
                self._offset += len(part)
                self.received += len(part)
                view = view[len(part) :]
                if self._offset == len(buffer):
                    self._notify(self._index)
                    self._index, self._offset = self._index + 1, 0
        return True

    def finish(self) -> None:
        """The body is whole: its last buffer may be filled in part."""
        if self._offset:
            self._notify(self._index)


class Boto3Bucket:
    """See the module, and `Bucket` for the methods."""

    def __init__(self, client: S3Client, config: Config, metrics: Metrics, place: Place) -> None:
        self._client = client
        self._common = common_parameters(config)
        self._metrics = metrics
        self.place = place
        self._limiter = trio.CapacityLimiter(config.max_connections)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Boto3Bucket {self.place.bucket} at {self.place.endpoint}>"

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        return await self._in_thread("head", lambda: self._head(key))

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
        parameters: dict[str, Any] = {"Prefix": prefix, "MaxKeys": max_keys}
        if delimiter:
            parameters["Delimiter"] = delimiter
        if token is not None:
            parameters["ContinuationToken"] = token
        elif start_after:
            parameters["StartAfter"] = start_after
        return await self._in_thread("list", lambda: self._list(prefix, parameters))

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
        parameters: dict[str, Any] = {"Key": key, "Range": asked.header}
        if etag is not None:
            parameters["IfMatch"] = etag
        if version_id is not None:
            parameters["VersionId"] = version_id
        trio_token = trio.lowlevel.current_trio_token()
        noticed = 0

        def tell(index: int) -> None:
            nonlocal noticed
            if on_filled is not None and index >= noticed:
                noticed = index + 1
                on_filled(index)

        def notify(index: int) -> None:
            if on_filled is not None:
                trio_token.run_sync_soon(tell, index)

        sink = _Sink(into, notify)
        try:
            reply = await self._in_thread("get", lambda: self._get(asked, parameters, sink))
        except RequestError as error:
            return await second_look(self, asked, error)
        finally:
            sink.abandon()
            noticed = len(into)
            self._metrics.count("bytes.fetched", sink.received)
        return reply

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        self._closed = True
        await trio.to_thread.run_sync(self._client.close)

    # --- on the trio thread -----------------------------------------------------------------

    async def _in_thread(self, kind: str, call: Callable[[], T]) -> T:
        if self._closed:
            raise Closed
        self._metrics.count(f"requests.{kind}")
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)

    # --- in a thread ------------------------------------------------------------------------

    def _head(self, key: str) -> ObjectInfo:
        what = f"HEAD of {key!r}"
        try:
            response = self._client.head_object(Key=key, **self._common)
        except Exception as error:
            raise from_exception(error, what, self.place) from error
        metadata = response["ResponseMetadata"]
        return check_head(metadata["HTTPStatusCode"], metadata["HTTPHeaders"], key)

    def _list(self, prefix: str, parameters: dict[str, Any]) -> ListPage:
        what = f"the listing of {prefix!r}"
        try:
            # Decoded here and not by botocore, which would replace what is not UTF-8.
            page = self._client.list_objects_v2(EncodingType="url", **parameters, **self._common)
        except Exception as error:
            raise bucket_missing(from_exception(error, what, self.place), self.place) from error
        if page.get("KeyCount") is None and "Name" not in page:
            raise BadReply(f"the answer to {what} is no listing")
        decode = decoded if page.get("EncodingType") == "url" else str
        objects = []
        for found in page.get("Contents", ()):
            key = decode(found["Key"])
            if key is not None:
                objects.append(_object_of_listing(key, found))
        prefixes = [decode(found["Prefix"]) for found in page.get("CommonPrefixes", ())]
        return ListPage(
            objects,
            [found for found in prefixes if found is not None],
            page.get("NextContinuationToken") if page["IsTruncated"] else None,
        )

    def _get(self, asked: Asked, parameters: dict[str, Any], sink: _Sink) -> RangeReply:
        what = f"GET of {asked.key!r}"
        try:
            response = self._client.get_object(**parameters, **self._common)
        except Exception as error:
            raise from_exception(error, what, self.place) from error
        body = response["Body"]
        with closing(body):  # and not drained: what is left may be gigabytes
            metadata = response["ResponseMetadata"]
            info, length = check_range(metadata["HTTPStatusCode"], metadata["HTTPHeaders"], asked)
            try:
                _copy(body, length, sink)
            except Exception as error:
                cause = f"{what} broke off after {sink.received} bytes: {error}"
                raise BodyInterrupted(cause, received=sink.received, info=info) from error
        sink.finish()
        return RangeReply(info, sink.received)


def _copy(body: StreamingBody, length: int, sink: _Sink) -> None:
    """Read the body into the sink, until it is whole or nobody wants it."""
    while sink.received < length:
        data = body.read(min(CHUNK, length - sink.received))
        if not data:
            raise EOFError("it ended early")
        if not sink.write(data):
            return


def _object_of_listing(key: str, found: ObjectTypeDef) -> ObjectInfo:
    return ObjectInfo(
        key,
        found["Size"],
        found["ETag"],
        # Whole seconds, as HEAD and GET tell: an mtime must not depend on who told it.
        math.floor(found["LastModified"].timestamp()) * 10**9,
        found.get("StorageClass", "STANDARD"),
    )
