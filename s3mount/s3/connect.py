"""Builds the bucket that the daemon uses: retrying, over lean or boto3, in the right region.

`connect` reads credentials and profiles (files, perhaps the network), and sends nothing to
S3 yet: the first listing shows whether the bucket can be used, and its errors say why not.
"""

from __future__ import annotations

import trio

from s3mount.config import Config
from s3mount.metrics import Metrics
from s3mount.s3.bucket import Bucket
from s3mount.s3.client import Boto3Bucket, make_client, make_session
from s3mount.s3.errors import Place, from_exception
from s3mount.s3.retrying import Retrying


async def connect(config: Config, metrics: Metrics) -> Bucket:
    """The bucket of `config`, ready to be asked. Raises `RequestError`."""
    bucket = await trio.to_thread.run_sync(_build, config, metrics, config.region)
    return Retrying(bucket, retries=config.retries, deadline=config.deadline, metrics=metrics)


def _build(config: Config, metrics: Metrics, region: str | None) -> Bucket:
    place = Place(config.bucket, config.endpoint_url or "", region, config.profile)
    try:
        client = make_client(config, make_session(config), region)
    except Exception as error:
        raise from_exception(error, "setting up the connection", place) from error
    place = Place(config.bucket, client.meta.endpoint_url, client.meta.region_name, config.profile)
    return Boto3Bucket(client, config, metrics, place)
