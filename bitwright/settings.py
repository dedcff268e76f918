"""Every setting in one place: environment variables `BITWRIGHT_<NAME>`, their defaults and ranges."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bitwright.core.errors import InvalidSetting


class Settings(BaseSettings):
    """Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="BITWRIGHT_", frozen=True, extra="ignore")

    state_dir: Path = Field(default=Path(".bitwright"), description="database, blobs and checkpoints of this host")
    database_url: str | None = Field(
        default=None, description="default: SQLite under state_dir; or postgresql+psycopg://..."
    )
    broker_url: str | None = Field(default=None, description="redis://... for distributed mode; none in embedded mode")
    model_roots: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict, description="file:ROOT/... roots: name=path,name=path"
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    api_key: SecretStr | None = Field(
        default=None, min_length=16, exclude=True, description="one key with every scope; more: bitwright keys"
    )
    workers: int = Field(default=1, ge=0, le=64, description="embedded runner slots of `bitwright serve`")
    lease_seconds: float = Field(default=30, gt=0, le=3600, description="research/06 B3: 30 s, renewed each 10 s")
    renew_seconds: float = Field(default=10, gt=0, le=1200)
    reaper_seconds: float = Field(default=5, gt=0, le=600)
    alive_file: Path | None = Field(
        default=None, description="a worker touches it at each sweep: a probe sees whether its loop still turns"
    )
    poll_seconds: float = Field(default=0.5, gt=0, le=60, description="how often an idle runner looks for work")
    max_attempts: int = Field(default=3, ge=1, le=100)
    busy_seconds: float = Field(
        default=10, gt=0, le=300, description="how long a request waits for a locked database before it is answered 503"
    )
    database_connections: int = Field(default=5, ge=1, le=200, description="kept open to PostgreSQL by each process")
    shards: int = Field(
        default=0, ge=0, le=10_000, description="parts of scoring and executing; 0: 8 with a broker, else 1"
    )
    cut_weights: int = Field(
        default=20_000_000, ge=0, description="where shards is 0: models of fewer planned weights are not cut"
    )
    tenant_active_jobs: int = Field(default=20, ge=1, description="jobs and steps of one tenant that run at once")
    tenant_queued_jobs: int = Field(default=1000, ge=1, description="jobs of one tenant that may wait")
    tenant_writing_jobs: int = Field(
        default=256, ge=1, description="jobs of one tenant that write checkpoints, waiting and running together"
    )
    tenant_streams: int = Field(default=10, ge=1, description="open event streams of one tenant")
    tenant_waits: int = Field(default=20, ge=1, description="requests of one tenant that wait for a job at once")
    tenant_uploads: int = Field(default=1000, ge=1, description="texts and problem files that one tenant keeps")
    batch_jobs: int = Field(default=256, ge=1, le=10_000, description="most jobs of one batch")
    max_request_bytes: int = Field(default=8 * 2**20, ge=1024)
    max_solve_units: int = Field(default=20_000, ge=1)
    max_solve_formats: int = Field(
        default=64, ge=1, le=64, description="formats of a problem of the synchronous routes"
    )
    max_solve_constraints: int = Field(default=1000, ge=1, description="its limits and rules together")
    max_name_chars: int = Field(default=256, ge=1, le=256, description="one name in it")
    max_number: float = Field(default=1e18, gt=0, le=1e300, description="largest magnitude of a number in it")
    solve_processes: int = Field(default=1, ge=1, le=64, description="warm solver processes of the API")
    solve_seconds: float = Field(default=30, gt=0, le=300, description="wall limit of one synchronous solve")
    solve_memory_bytes: int = Field(
        default=4 * 2**30, ge=0, description="address-space limit of a solver process; 0 = none"
    )
    solve_cpu_seconds: int = Field(default=600, ge=1, description="processor time of one synchronous solve")
    ping_seconds: float = Field(
        default=15, gt=0, le=300, description="comment lines of an idle event stream (proxies cut at 30 to 60 s)"
    )
    stream_seconds: float = Field(
        default=600, gt=0, le=86_400, description="an event stream is closed after this; clients resume"
    )
    relay_seconds: float = Field(default=0.5, gt=0, le=60, description="how often doorbell messages go to the broker")
    heal_seconds: float = Field(
        default=5, gt=0, le=3600, description="jobs due this long with an empty broker queue are rung again"
    )
    job_memory_bytes: int = Field(default=0, ge=0, description="address-space limit of a job's child; 0 = none")
    job_resident_bytes: int = Field(
        default=0, ge=0, description="resident memory of a job's processes; 0 = nine tenths of the machine's"
    )
    job_descriptors: int = Field(default=4096, ge=64, description="files that a job's child may have open")
    job_seconds: float = Field(default=24 * 3600, gt=0, description="wall limit of one attempt of a job")
    job_cpu_seconds: int = Field(default=0, ge=0, description="processor-time limit of a job's child; 0 = none")
    job_file_bytes: int = Field(default=0, ge=0, description="largest file that a job's child may write; 0 = no limit")
    job_report_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="largest result or progress line a job's child may send"
    )
    cancel_seconds: float = Field(
        default=1, gt=0, le=60, description="how often a running job looks whether it was cancelled"
    )
    progress_seconds: float = Field(
        default=0.5, gt=0, le=60, description="progress of a job is stored at most this often"
    )
    settle_seconds: float = Field(
        default=120, gt=0, le=3600, description="how long a worker tries to store an outcome in a failing database"
    )
    webhook_seconds: float = Field(default=20, gt=0, le=60, description="time for a receiver to answer")
    webhook_poll_seconds: float = Field(default=1, gt=0, le=60, description="how often due webhooks are looked for")
    webhook_internal: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="host:port of receivers on the inner network, trusted by the operator: comma-separated"
    )
    webhook_proxy: str | None = Field(default=None, description="http://host:port through which webhooks leave")
    max_text_bytes: int = Field(default=8 * 2**20, ge=1, description="one uploaded calibration or evaluation text")
    max_problem_bytes: int = Field(default=8 * 2**20, ge=1024, description="one uploaded problem file")
    max_plan_bytes: int = Field(default=16 * 2**20, ge=1024, description="a plan inside a request")
    device: str = Field(
        default="auto", pattern=r"^[a-z][a-z0-9_]{0,31}(:[0-9]{1,3})?$",
        description="where heavy arithmetic runs: auto (CUDA where torch sees it, else the CPU), cpu, cuda, cuda:1",
    )  # fmt: skip
    max_threads: int = Field(default=256, ge=1, le=256, description="compute threads that a request may ask for")
    max_model_bytes: int = Field(default=200 * 2**30, ge=1, description="weight files of one model")
    max_header_bytes: int = Field(default=32 * 2**20, ge=1024, description="header of one weight file")
    json_logs: bool = Field(default=False, description="one JSON object a log line, instead of text")
    otlp_endpoint: str | None = Field(default=None, description="http://host:4318 of an OpenTelemetry collector")
    wait_seconds: float = Field(default=60, gt=0, le=300, description="longest Prefer: wait / ?wait=")
    page_size: int = Field(default=50, ge=1, le=1000)
    retention_days: int = Field(default=30, ge=1)

    @field_validator("model_roots", mode="before")
    @classmethod
    def _roots(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        return {name.strip(): path.strip() for name, _, path in pairs}

    @field_validator("webhook_internal", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def largest_body(self) -> int:
        """Bytes of the largest request body that any route takes."""
        return max(self.max_request_bytes, self.max_text_bytes, self.max_problem_bytes)

    @property
    def parts(self) -> int:
        """Into how many parts scoring and executing are cut."""
        return self.shards or (8 if self.broker_url is not None else 1)

    def for_child(self) -> Settings:
        """With `shards` as they are here, for a child is told no broker; chosen ones hold for any model."""
        return self.model_copy(update={"shards": self.parts, **({"cut_weights": 0} if self.shards else {})})

    @property
    def resident_limit(self) -> int:
        """Resident bytes that a job's processes may take together."""
        return self.job_resident_bytes or psutil.virtual_memory().total * 9 // 10

    @property
    def blob_dir(self) -> Path:
        return self.state_dir / "blobs"

    @property
    def checkpoint_dir(self) -> Path:
        return self.state_dir / "checkpoints"

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.state_dir / 'bitwright.db').absolute()}"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Settings from the environment, read once. Raises InvalidSetting naming the variable."""
    return make_settings()


def make_settings(**given: Any) -> Settings:
    """Settings from the environment, with some given instead. Raises InvalidSetting naming the variable."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = "BITWRIGHT_" + "_".join(str(p) for p in first["loc"]).upper()
        raise InvalidSetting(
            f"{name} is not valid", expected=first["msg"], got=repr(first.get("input"))[:80]
        ) from error
