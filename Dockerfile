# Two images from one file: the consumer (the default), and the sandbox's services for compose.yaml.
#
# Base images are pinned by the digest of all platforms' manifests; the tag says which one it was. To renew one:
# `docker buildx imagetools inspect python:3.11-slim-bookworm`. Debian's packages are the newest at build time.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# Rehome's wheels, built in a stage of its own: no build tool gets into an image.
FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml requirements.lock ./
COPY scripts/locked.py scripts/
COPY events events
COPY consumer consumer
RUN python scripts/locked.py build > build.txt && python scripts/locked.py rehome-consumer traces > runtime.txt
RUN pip install --require-hashes --only-binary :all: --requirement build.txt
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels ./events ./consumer

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY --from=wheel /build/runtime.txt ./
RUN pip install --require-hashes --only-binary :all: --requirement runtime.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps --no-index /wheels/*.whl

# PostgreSQL servers and database-service, for a machine to try things out on; not for production.
FROM base AS sandbox
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql postgresql-contrib \
    && rm -rf /var/lib/apt/lists/*
COPY sandbox sandbox
CMD ["python", "-m", "sandbox.platform.database_service", "--help"]

# The consumer. Client programs: of the dedicated servers' major version.
FROM base AS consumer
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /app rehome
USER rehome
# Swarm replaces what is unhealthy: one that was never ready, and one whose event loop has not answered for five minutes.
# Not one that lacks something: a restart brings no program, mount or broker, and would interrupt what runs. The start
# may take longer than REHOME_NOT_READY_TIMEOUT, after which a consumer that is not ready rolls back who is down.
HEALTHCHECK --interval=15s --timeout=15s --start-period=30m --retries=12 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"REHOME_HTTP_PORT\"]}/startupz', timeout=10)"]
# On loopback: for Prometheus set REHOME_HTTP_HOST to 0.0.0.0, where no tenant's service is on the same network.
ENV REHOME_HTTP_PORT=8080
# The C library would keep large blocks that are free, and a consumer's memory would grow for an hour (measured).
ENV MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
ENTRYPOINT ["rehome"]
CMD ["run"]
