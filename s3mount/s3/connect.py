"""Builds the bucket that the daemon uses: retrying and hedging, in the right region.

`connect` reads credentials and profiles (files, perhaps the network), and sends nothing to
S3 yet: the first listing shows whether the bucket can be used, and its errors say why not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import botocore.session
import trio
from botocore.credentials import Credentials, RefreshableCredentials

from s3mount.config import Config, spare
from s3mount.errors import CredentialsError, RequestError
from s3mount.metrics import Metrics
from s3mount.model import ListPage, ObjectInfo, RangeReply
from s3mount.s3.bucket import Bucket, OnFilled
from s3mount.s3.client import Boto3Bucket, common_parameters, make_client, make_session
from s3mount.s3.endpoint import Endpoint, find_endpoint
from s3mount.s3.errors import OtherRegion, Place, from_exception
from s3mount.s3.hedging import Hedging
from s3mount.s3.lean import LeanBucket
from s3mount.s3.retrying import Retrying
from s3mount.s3.signing import Signer
from s3mount.s3.workers import Workers

T = TypeVar("T")

# Seconds between two looks for other credentials: each reads files and may ask the network.
LOOK_AGAIN = 10.0


class Connection(NamedTuple):
    """A bucket, and in whose name it is asked."""

    bucket: Retrying
    identity: str  # the endpoint and the credentials, as far as they outlive a session


async def connect(config: Config, metrics: Metrics, nursery: trio.Nursery) -> Connection:
    """The bucket of `config`, ready to be asked. Raises `RequestError`.

    `nursery` runs what outlives no call, and must be cancelled after `aclose`.
    """
    prepared = await trio.to_thread.run_sync(_prepare, config, metrics, config.region)
    bucket: Bucket = Reconnecting(config, metrics, _bucket(config, metrics, prepared, lean=True))
    if config.hedge_share:
        bucket = Hedging(bucket, share=config.hedge_share, metrics=metrics, nursery=nursery)
    deadline = config.deadline - spare(config.deadline)
    retrying = Retrying(bucket, retries=config.retries, deadline=deadline, metrics=metrics)
    return Connection(retrying, prepared.identity)


async def build(
    config: Config, metrics: Metrics, region: str | None, *, lean: bool = True
) -> Bucket:
    """One bucket without retries; `lean` False: over boto3 alone. Raises `RequestError`."""
    prepared = await trio.to_thread.run_sync(_prepare, config, metrics, region)
    return _bucket(config, metrics, prepared, lean=lean)


class _Prepared(NamedTuple):
    """What a bucket is made of."""

    bucket: Boto3Bucket
    endpoint: Endpoint | None  # None: only boto3 can talk to it
    credentials: Credentials | None
    identity: str


def _bucket(config: Config, metrics: Metrics, prepared: _Prepared, *, lean: bool) -> Bucket:
    boto3_bucket, endpoint, credentials, _ = prepared
    if endpoint is None or not lean:
        return boto3_bucket
    workers = Workers(endpoint.address, limit=config.max_connections, timeout=config.read_timeout)
    signer = Signer(credentials, endpoint.region, endpoint.service)
    return LeanBucket(
        endpoint,
        signer,
        workers,
        otherwise=boto3_bucket,
        metrics=metrics,
        place=boto3_bucket.place,
    )


def _prepare(config: Config, metrics: Metrics, region: str | None) -> _Prepared:
    """In a thread, as files are read and credentials may come over the network."""
    place = Place(config.bucket, config.endpoint_url or "", region, config.profile)
    try:
        session = make_session(config)
        client = make_client(config, session, region)
        endpoint = find_endpoint(client, session, config, common_parameters(config))
        credentials = session.get_credentials() if endpoint and endpoint.signed else None
        identity = f"{client.meta.endpoint_url} {_signer(config, session)}"
    except Exception as error:
        raise from_exception(error, "setting up the connection", place) from error
    place = Place(config.bucket, client.meta.endpoint_url, client.meta.region_name, config.profile)
    return _Prepared(Boto3Bucket(client, config, metrics, place), endpoint, credentials, identity)


def _signer(config: Config, session: botocore.session.Session) -> str:
    """Who signs: an access key, or where its like comes from when it is another each time."""
    credentials = None if config.no_sign_request else session.get_credentials()
    if credentials is None:
        return "nobody"
    if isinstance(credentials, RefreshableCredentials) or credentials.token:
        return f"{credentials.method} {session.profile or ''}"
    return f"{credentials.access_key}"


class Reconnecting:
    """Moves to the bucket's region when S3 names it, unless the user chose one.

    It also looks for credentials anew when S3 no longer takes those in use: botocore
    refreshes what it fetched, but not what it read from a file that was written since.
    """

    def __init__(self, config: Config, metrics: Metrics, bucket: Bucket) -> None:
        self._config = config
        self._metrics = metrics
        self._bucket = bucket
        self._region = config.region
        self._building = trio.Lock()
        self._built = trio.current_time()

    def __repr__(self) -> str:
        return f"<Reconnecting {self._bucket!r}>"

    async def head(self, key: str) -> ObjectInfo:
        """See `Bucket.head`."""
        return await self._ask(lambda bucket: bucket.head(key))

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
        return await self._ask(
            lambda bucket: bucket.list_page(
                prefix,
                delimiter=delimiter,
                start_after=start_after,
                token=token,
                max_keys=max_keys,
            )
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
        return await self._ask(
            lambda bucket: bucket.get_range(
                key, start, into, etag=etag, version_id=version_id, on_filled=on_filled
            )
        )

    async def aclose(self) -> None:
        """See `Bucket.aclose`."""
        await self._bucket.aclose()

    async def _ask(self, call: Callable[[Bucket], Awaitable[T]]) -> T:
        bucket = self._bucket
        try:
            return await call(bucket)
        except (OtherRegion, CredentialsError) as error:
            await self._rebuild(bucket, error)
        return await call(self._bucket)

    async def _rebuild(self, failed: Bucket, error: RequestError) -> None:
        """Replace the bucket that answered with `error`; raises it when that cannot help."""
        async with self._building:
            if self._bucket is not failed:
                return  # another request met the same, and was first
            if isinstance(error, OtherRegion):
                if self._config.region is not None:
                    raise error
                self._region = error.region
            elif trio.current_time() < self._built + LOOK_AGAIN:
                raise error
            self._built = trio.current_time()
            self._bucket = await build(self._config, self._metrics, self._region)
        # Requests under way on it end by themselves; those that failed are asked again.
        await failed.aclose()
