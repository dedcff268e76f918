# API and dashboard: no deep-learning framework, no compiler in the image. Build from the top folder:
#   docker build -f docker/api.Dockerfile -t bitwright-api .
FROM python:3.11-slim-bookworm AS build
# The distribution's current security fixes are wanted: its packages are not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python -m venv /opt/bitwright \
 && /opt/bitwright/bin/pip install --no-cache-dir --constraint /src/requirements/lock.txt "/src[distributed]"
WORKDIR /tmp
# The compiled solvers of the synchronous routes.
RUN /opt/bitwright/bin/python -m solvers.native.build

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/bitwright bitwright
COPY --from=build /opt/bitwright /opt/bitwright
ENV PATH=/opt/bitwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BITWRIGHT_STATE_DIR=/var/lib/bitwright
USER 10001
WORKDIR /var/lib/bitwright
VOLUME /var/lib/bitwright
EXPOSE 8321
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/livez', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["bitwright", "serve", "--workers", "0", "--host", "0.0.0.0"]
