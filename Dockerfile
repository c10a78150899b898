# docker build .                 the image that every component runs in
# docker build --target task ... an image of your own on top of it, with your task inside (see below)
#
# Needs BuildKit. The base can be pinned: --build-arg BASE=python:3.11-slim@sha256:...
ARG BASE=python:3.11-slim
ARG COLLABOPT=ghcr.io/collabopt/collabopt:0.1.0

# The installer is only ever mounted: no image holds it. The hashes are those of the wheels for amd64 and arm64.
FROM ${BASE} AS uv
RUN --mount=type=cache,target=/root/.cache/pip \
    echo "uv==0.13.9" \
        "--hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19" \
        "--hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe" >/uv.txt \
    && python -m pip install --quiet --root-user-action ignore --require-hashes --target /uv -r /uv.txt

# Everything pinned, in a virtual environment without pip. What no stage loads is left out: headers for building
# TensorFlow operators in C++, the packages' own tests, and the symbol table that the dynamic linker does not read
# (.dynsym, which it does read, stays).
FROM ${BASE} AS dependencies
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils >/dev/null
RUN --mount=type=bind,from=uv,source=/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=requirements-engine.txt,target=/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    python -m venv --without-pip /opt/collabopt \
    && uv pip install --quiet --python /opt/collabopt --no-deps --require-hashes --link-mode copy -r /requirements.txt \
    && cd /opt/collabopt/lib/python3.*/site-packages \
    && rm -rf tensorflow/include \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && strip --strip-unneeded tensorflow/libtensorflow_cc.so.2 tensorflow/libtensorflow_framework.so.2 \
    && /opt/collabopt/bin/python -m compileall -q -j 0 . \
    && rm -f /opt/collabopt/.lock

# A layer of its own on top of those: it is all that changes from one commit to the next.
FROM dependencies AS package
COPY . /src
RUN --mount=type=bind,from=uv,source=/uv/bin/uv,target=/usr/local/bin/uv \
    uv pip install --quiet --no-cache --python /opt/collabopt --prefix /package --no-deps --no-build-isolation \
        --compile-bytecode --link-mode copy /src \
    && rm -f /package/.lock

# A user's image: the context is the directory of the task's modules, and what its requirements.txt names is installed
# in the versions that go with those already there.
#   docker build -f Dockerfile --target task --build-arg COLLABOPT=registry.example.com/collabopt:0.1.0 \
#       -t registry.example.com/my-task my_task/
FROM ${COLLABOPT} AS task
USER 0
COPY . /opt/task
RUN --mount=type=bind,from=uv,source=/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    if [ -f /opt/task/requirements.txt ]; then \
        uv pip freeze --python /opt/collabopt >/tmp/installed.txt \
        && uv pip install --quiet --python /opt/collabopt --compile-bytecode --link-mode copy \
            --constraints /tmp/installed.txt -r /opt/task/requirements.txt \
        && rm -f /tmp/installed.txt /opt/collabopt/.lock; \
    fi \
    && python -m compileall -q /opt/task
ENV PYTHONPATH=/opt/task
USER 1001:0

FROM ${BASE} AS collabopt
# Nothing is installed at run time; the base's own pip would install where nobody looks.
RUN if command -v pip >/dev/null; then python -m pip uninstall --yes --quiet --root-user-action ignore pip; fi \
    && mkdir -m 0775 /home/collabopt \
    && chown 1001:0 /home/collabopt
COPY --from=dependencies /opt/collabopt /opt/collabopt
COPY --from=package /package /opt/collabopt

# No file of the image is written at run time: caches go to /tmp, so that a read-only root file system will do. HOME can
# be written by any user of group 0, as OpenShift assigns them. There is no ENTRYPOINT: Kubernetes replaces it, and what
# else runs components does not.
ENV PATH=/opt/collabopt/bin:${PATH} \
    HOME=/home/collabopt \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_USE_LEGACY_KERAS=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1001:0
WORKDIR /tmp
CMD ["collabopt", "--help"]

ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://github.com/collabopt/collabopt
LABEL org.opencontainers.image.title="collabopt" \
      org.opencontainers.image.description="Stages of TensorFlow's collaborative-optimization tree for Kubeflow Pipelines" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"
