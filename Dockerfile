# One image for every component. The base can be pinned: --build-arg BASE=python:3.11-slim@sha256:...
ARG BASE=python:3.11-slim
FROM ${BASE}

LABEL org.opencontainers.image.title="collabopt" \
      org.opencontainers.image.description="Stages of TensorFlow's collaborative-optimization tree for Kubeflow Pipelines" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY requirements-engine.txt /tmp/requirements-engine.txt
RUN --mount=type=cache,target=/root/.cache \
    python -m pip install uv==0.13.9 \
    && uv pip install --system --no-deps --require-hashes --compile-bytecode --link-mode copy \
       -r /tmp/requirements-engine.txt \
    && rm /tmp/requirements-engine.txt

COPY pyproject.toml README.md /src/
COPY components /src/components
COPY pipelines /src/pipelines
RUN --mount=type=cache,target=/root/.cache \
    uv pip install --system --no-deps --no-build-isolation --compile-bytecode --link-mode copy /src \
    && rm -rf /src \
    && mkdir -m 0775 /home/collabopt \
    && chgrp 0 /home/collabopt

# Nothing is written to the image at run time: caches go to /tmp, so that a read-only root file system will do.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/collabopt \
    XDG_CACHE_HOME=/tmp/cache \
    TF_USE_LEGACY_KERAS=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MLFLOW_DISABLE_TELEMETRY=true

USER 1001:0
WORKDIR /tmp
CMD ["collabopt", "--help"]
