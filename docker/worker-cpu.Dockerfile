# Worker for the queues cpu and solve. Build from the top folder:
#   docker build -f docker/worker-cpu.Dockerfile -t bitwright-worker-cpu .
FROM python:3.11-slim-bookworm AS build
# The distribution's current security fixes are wanted: its packages are not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# An index with CPU wheels of torch; without it pip takes the (much larger) CUDA build, which works as well.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /src
RUN python -m venv /opt/bitwright \
 && /opt/bitwright/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /src/requirements/lock.txt \
    "/src[models,distributed]"
WORKDIR /tmp
RUN /opt/bitwright/bin/python -m gpu_kernels.build && /opt/bitwright/bin/python -m solvers.native.build

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/bitwright bitwright
COPY --from=build /opt/bitwright /opt/bitwright
ENV PATH=/opt/bitwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BITWRIGHT_STATE_DIR=/var/lib/bitwright
USER 10001
WORKDIR /var/lib/bitwright
VOLUME /var/lib/bitwright
STOPSIGNAL SIGTERM
CMD ["bitwright", "worker", "--queue", "cpu", "--queue", "solve", "--slots", "1"]
