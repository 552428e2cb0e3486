# s3mount in a container:
#
#     docker build -t s3mount .
#     docker run --rm --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined \
#         -v /mnt/photos:/mnt/photos:rshared -e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY \
#         s3mount my-bucket /mnt/photos --allow-other
#
# `rshared` is what makes the mount seen outside the container. It runs as root: a mount for
# others takes it. scripts/check-dockerfile runs the steps below without a Docker engine.

FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
# What builds stays here; only wheels go on. The locks come before the sources, so that a change
# of these does not build pyfuse3 again.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && /opt/build/bin/pip wheel --no-cache-dir --require-hashes --no-build-isolation \
        -r requirements/runtime.txt --wheel-dir /wheels
COPY pyproject.toml LICENSE README.md ./
COPY s3mount s3mount
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation . --wheel-dir /wheels \
    && python3 -m venv --without-pip /opt/s3mount \
    && /opt/build/bin/pip --python /opt/s3mount/bin/python install --no-index --no-deps /wheels/*.whl

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates fuse3 python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/s3mount /opt/s3mount
# SIGTERM, from `docker stop`, unmounts.
ENTRYPOINT ["/opt/s3mount/bin/s3mount", "--foreground"]
