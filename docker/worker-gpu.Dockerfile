# Worker for the queue gpu, one slot a device; kernels are compiled here, never at run time. Build from the top folder:
#   docker build -f docker/worker-gpu.Dockerfile -t bitwright-worker-gpu .
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build
# The distribution's current security fixes are wanted: its packages are not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3 python3-venv && rm -rf /var/lib/apt/lists/*
COPY . /src
# The lock names a CPU build of torch: here torch comes with CUDA, everything else as locked.
RUN python3 -m venv /opt/bitwright \
 && grep -vE '^(torch|triton|nvidia-)' /src/requirements/lock.txt > /tmp/constraints.txt \
 && /opt/bitwright/bin/pip install --no-cache-dir --constraint /tmp/constraints.txt "/src[models,distributed]"
WORKDIR /tmp
RUN /opt/bitwright/bin/python -m gpu_kernels.build && /opt/bitwright/bin/python -m solvers.native.build

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
# The distribution's current security fixes are wanted: its packages are not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/bitwright bitwright
COPY --from=build /opt/bitwright /opt/bitwright
ENV PATH=/opt/bitwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BITWRIGHT_STATE_DIR=/var/lib/bitwright
USER 10001
WORKDIR /var/lib/bitwright
VOLUME /var/lib/bitwright
STOPSIGNAL SIGTERM
CMD ["bitwright", "worker", "--queue", "gpu", "--slots", "1"]
