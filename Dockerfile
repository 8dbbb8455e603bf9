# theraflow in a container:  docker build --tag theraflow .          (PyTorch for the CPU)
#                            docker build --tag theraflow:cuda --build-arg TORCH=cuda .
# How to run it: docs/containers.md. Versions stand in pyproject.toml, requirements.lock and resources/viewer alone, and
# `make env` installs them here as everywhere; only that of Python is named again, and `make lint` compares it.
ARG PYTHON=3.11

FROM python:${PYTHON}-bookworm AS build
ARG PYTHON
ARG TORCH=cpu
WORKDIR /opt/theraflow
COPY pyproject.toml requirements.lock environment.yml Makefile README.md LICENSE Snakefile ./
COPY profiles profiles
COPY resources resources
COPY workflow workflow
# The lock holds the tools of the developers too: the largest of them stay out. Who runs a container cannot write here,
# and would have the workflow compiled by every job.
RUN make env PYTHON="python${PYTHON}" TORCH="${TORCH}" \
    && .venv/bin/pip uninstall --quiet --yes bids-validator-deno deno playwright ruff \
    && .venv/bin/python -m compileall -q --invalidation-mode unchecked-hash workflow/scripts

FROM python:${PYTHON}-slim-bookworm
ARG REVISION=""
LABEL org.opencontainers.image.title="theraflow" \
      org.opencontainers.image.description="Workflow for theranostic nuclear medicine; for research use only" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --create-home --uid 10001 theraflow
COPY --from=build /opt/theraflow /opt/theraflow
# Caches go where any user may write, for `docker run --user` gives the results to whom they belong.
ENV PATH="/opt/theraflow/.venv/bin:${PATH}" \
    THERAFLOW_COMMIT="${REVISION}" \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /study
ENTRYPOINT ["snakemake", "-s", "/opt/theraflow/Snakefile"]
CMD ["--help"]
