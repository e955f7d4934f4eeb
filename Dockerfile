# One image for every process: code server and runs, webserver, daemon, command line, migrations.
# Pin the base image to one that you have reviewed: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
# For Kubernetes, which needs Dagster's run launcher for pods: --build-arg LOCK=requirements-k8s.lock

ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG LOCK=requirements.lock
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/backfills && python -m venv /opt/build
WORKDIR /src
# Install dependencies first, so that a change of the code does not reinstall them.
COPY requirements.lock requirements-k8s.lock requirements-build.lock ./
RUN /opt/backfills/bin/pip install --require-hashes --only-binary :all: -r "${LOCK}" \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY sql ./sql
COPY dagster_backfills ./dagster_backfills
RUN /opt/build/bin/python -m hatchling build -t wheel -d /wheel \
    && /opt/backfills/bin/pip install --no-deps --no-index /wheel/*.whl \
    && /opt/backfills/bin/pip uninstall --yes pip \
    && find /opt/backfills/lib -depth -type d -name tests -exec rm -r {} + \
    && /opt/backfills/bin/python -m compileall -q /opt/backfills/lib
# The Helm chart starts `dagster-webserver`. Make that the webserver that identifies users.
RUN printf '#!/bin/sh\nexec backfills webserver "$@"\n' > /opt/backfills/bin/dagster-webserver
# Fail the build if the definitions can't be loaded.
RUN cd / && BACKFILLS_DOMAINS=all /opt/backfills/bin/python -c "from dagster_backfills.definitions import defs; defs()"

FROM ${PYTHON_IMAGE}
# The user owns only its home; root owns the code, so that the user can't change it.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/backfills --shell /usr/sbin/nologin backfills \
    && install -d -o backfills -g backfills /var/lib/dagster
COPY --from=build /opt/backfills /opt/backfills
ENV PATH=/opt/backfills/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BACKFILLS_DOMAINS=all \
    DAGSTER_HOME=/var/lib/dagster \
    BACKFILLS_HOME=/var/lib/backfills
USER 10001:10001
WORKDIR /var/lib/backfills
# `backfills exec` reads the secrets that …_FILE variables name into the environment of the program it starts.
ENTRYPOINT ["backfills", "exec"]
CMD ["backfills", "--help"]
