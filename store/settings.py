"""Every setting of the service, read from `SECATEUR_*` environment variables."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 2**30


class Settings(BaseSettings):
    """Settings shared by api, worker and control; a field `x` is read from `SECATEUR_X`.

    `database_url`, `blob_dir` and `slots_dir` follow `data_dir` unless they are given.
    """

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", env_ignore_empty=True, extra="ignore")

    # places
    data_dir: Path = Path.home() / ".secateur"
    database_url: str = Field(default="", repr=False)
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)
    blob_dir: Path = Path()
    slots_dir: Path = Path()

    # the database and the storage
    database_wait_seconds: float = Field(default=10.0, gt=0)  # for a lock or a connection
    database_answer_seconds: float = Field(default=30.0, gt=0)  # for a statement, on PostgreSQL
    storage_reserve_bytes: int = Field(default=GIB // 2, ge=0)  # free space that uploads leave
    quarantine_days: float = Field(default=30.0, ge=0)  # how long damaged files are kept aside
    scrub_days: float = Field(default=7.0, gt=0)  # from the beginning of a pass to that of the next
    scrub_bytes_per_second: int = Field(default=20 * 2**20, ge=0)  # 0: no scrub

    # the HTTP service
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    model_bytes_limit: int = Field(default=2 * GIB, ge=1)
    dataset_bytes_limit: int = Field(default=4 * GIB, ge=1)
    upload_idle_seconds: float = Field(default=20.0, gt=0)
    queued_jobs_limit: int = Field(default=1_000, ge=1)
    keys_limit: int = Field(default=100, ge=1)  # of one project
    failed_keys_limit: int = Field(default=20, ge=1)  # of one client's address; one more every 3 s

    # what one API process does at the same time; what is over it gets 503 and Retry-After
    uploads_limit: int = Field(default=24, ge=1)  # in progress; of one project at most half
    uploads_waiting_limit: int = Field(default=100, ge=0)
    upload_bytes_limit: int = Field(default=16 * GIB, ge=1)  # announced by uploads in progress
    downloads_limit: int = Field(default=64, ge=1)  # of files of jobs; of one project at most half
    event_streams_limit: int = Field(default=1_000, ge=1)
    project_event_streams_limit: int = Field(default=500, ge=1)
    gate_seconds: float = Field(default=5.0, gt=0)  # longest wait for a place

    # connections: times in seconds; slow_seconds is the window in which a body or an answer must
    # move slow_bytes_per_second on average
    head_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=20.0, gt=0)  # for a whole body that is no upload
    keep_alive_seconds: float = Field(default=20.0, gt=0)
    slow_seconds: float = Field(default=20.0, gt=0)
    slow_bytes_per_second: int = Field(default=512, ge=1)
    connections_limit: int = Field(default=2_000, ge=1)
    address_connections_limit: int = Field(default=1_500, ge=1)  # of one client's address
    anonymous_connections_limit: int = Field(default=1_200, ge=1)  # that have shown no key
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()

    # running jobs
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    stall_seconds: float = Field(default=300.0, gt=0)
    wall_seconds: float = Field(default=3600.0, gt=0)
    kill_grace_seconds: float = Field(default=5.0, ge=0)
    max_attempts: int = Field(default=3, ge=1)
    # how long a job waits that the service could not work on, for example as its disk was full:
    # twice as long each time; once it waited so long in total, it fails. In seconds.
    put_off_first_seconds: float = Field(default=5.0, gt=0)
    put_off_longest_seconds: float = Field(default=300.0, gt=0)
    put_off_total_seconds: float = Field(default=12 * 3600.0, ge=0)
    warm_children: bool = True
    child_memory_bytes: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)  # None: this worker's share of the cores
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sandbox: Literal["required", "best", "off"] = "best"
    sandbox_read: str = ""  # further paths that children may read, separated as in PATH

    # control
    reaper_seconds: float = Field(default=5.0, gt=0)
    relay_seconds: float = Field(default=0.2, gt=0)
    ring_again_seconds: float = Field(default=15.0, gt=0)
    leader_seconds: float = Field(default=15.0, gt=0)
    sweep_seconds: float = Field(default=600.0, gt=0)
    blob_grace_seconds: float = Field(default=0.0, ge=0)  # 0: well over the longest attempt

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, given: Any) -> Any:
        return [part.strip() for part in given.split(",")] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self.data_dir = self.data_dir.expanduser().absolute()
        if self.blob_dir == Path():
            self.blob_dir = self.data_dir / "blobs"
        if self.slots_dir == Path():
            self.slots_dir = self.data_dir / "slots"
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data_dir / 'secateur.db'}"
        for plain in ("postgres://", "postgresql://"):
            if self.database_url.startswith(plain):
                self.database_url = "postgresql+psycopg://" + self.database_url[len(plain) :]
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("heartbeat_seconds must be at most half of lease_seconds")
        # What a job has written lies among the blobs without a row until it is verified and the
        # job has ended, and the last write may take as long as the lease.
        longest = self.wall_seconds + self.lease_seconds
        if not self.blob_grace_seconds:
            self.blob_grace_seconds = 2 * longest
        if self.blob_grace_seconds < longest:
            raise ValueError(
                f"blob_grace_seconds must be at least wall_seconds and lease_seconds together, "
                f"{longest:g}: files of a running job would be swept"
            )
        return self


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
