# Any Debian with `python` and `pip` on the PATH.
ARG BASE=python:3.13-slim-bookworm

# Wheel stage: Python, a C compiler, and the Go toolchain that pip brings; nothing of it reaches the image.
FROM ${BASE} AS wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG TAILBONE_COMMIT=""
RUN --mount=type=cache,target=/root/.cache \
    pip wheel --no-deps --wheel-dir /wheels . \
    && sha256sum /wheels/*.whl > /wheel.sha256

FROM ${BASE}
# Podman's cache takes a mounted file for unchanged, but not a copied one: without this, a new wheel is not installed.
COPY --from=wheel /wheel.sha256 /usr/local/share/tailbone/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile /wheels/*.whl \
    && python -m compileall -q "$(python -c 'import tailbone; print(tailbone.__path__[0])')" \
    && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent tailbone \
    && install --directory --owner=10001 --group=0 --mode=0770 /var/lib/tailbone
USER 10001:10001
# All that is written: the node's state and the signing keys. The root file system may be read-only.
# Its group is 0 for platforms that run images as an arbitrary user of that group. It is not a VOLUME: without one
# that somebody made, state would seem to be kept, in a volume without a name.
WORKDIR /var/lib/tailbone
ENV TB_SERVER_TAILSCALE_DIR=/var/lib/tailbone/tsnet \
    TB_KEYS_DIR=/var/lib/tailbone/keys \
    TB_LOG_FORMAT=json \
    PYTHONDONTWRITEBYTECODE=1
# Kubernetes ignores it: see deploy/kubernetes. Podman keeps it only in images built with `--format docker`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["tailbone", "health"]
ENTRYPOINT ["tailbone"]
CMD ["server", "start"]
