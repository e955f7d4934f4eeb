"""The engine's settings: batch sizes, timeouts, back-pressure and retries."""

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Sizes are in units (users, members; partitions if a write lists no units), times in seconds.

    The I/O manager's config takes each field's default, bounds and description from `model_fields`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_units: int = Field(
        default=10_000, ge=1, description="Size of the first batch, in units (users, members)."
    )
    min_batch_units: int = Field(default=1, ge=1, description="Smallest batch, in units.")
    max_batch_units: int = Field(default=200_000, ge=1, description="Largest batch, in units.")
    target_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Target duration of a batch in seconds; batch size adapts to it. 0 keeps the size constant.",
    )
    statement_timeout: float = Field(
        default=300.0, ge=0, description="Timeout of each statement of a batch, in seconds; 0 for none."
    )
    lock_timeout: float = Field(
        default=5.0, ge=0, description="Longest wait for a row lock, in seconds; 0 for no limit."
    )
    work_mem: str = Field(
        default="64MB", description="Postgres's `work_mem` for batches: memory per sort or hash."
    )
    random_page_cost: float = Field(
        default=1.1,
        gt=0,
        description="Postgres's `random_page_cost` for batches. A value near 1 makes the planner prefer an index for "
        "a small part of a large table.",
    )
    delay_seconds: float = Field(default=0.0, ge=0, description="Pause between two batches, in seconds.")
    max_lock_waiters: int = Field(
        default=20,
        ge=0,
        description="If more sessions than this wait for locks, batches shrink and pause; 0 disables the check.",
    )
    max_replica_lag_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="If a replica lags by more bytes than this, batches shrink and pause; 0 disables the check.",
    )
    max_transaction_age: float = Field(
        default=0.0,
        ge=0,
        description="If a transaction has been open for longer (in seconds), batches shrink and pause; 0 disables the "
        "check.",
    )
    max_pause_seconds: float = Field(
        default=30.0, ge=0, description="Longest pause before a batch while the database is overloaded."
    )
    conflict_retries: int = Field(
        default=5,
        ge=0,
        description="Retries of a batch after a deadlock, a serialization failure or a lost connection.",
    )
    retry_seconds: float = Field(
        default=0.1,
        gt=0,
        description="Delay before the first retry of a batch or the first re-check of an overloaded database; it "
        "doubles each time.",
    )
    max_retry_seconds: float = Field(
        default=2.0, gt=0, description="Longest delay between two retries or checks."
    )
    reconnect_seconds: float = Field(
        default=120.0, ge=0, description="How long to try to reconnect to a lost server, in seconds."
    )
    max_losses_in_a_row: int = Field(
        default=100,
        ge=0,
        description="The run ends after more lost connections than this with no batch committed in between.",
    )
    journal: bool = Field(
        default=True,
        description="Keep the previous version of each changed row, so that a run can be undone.",
    )
    max_failures_in_a_row: int = Field(
        default=1_000,
        ge=0,
        description="The run ends after this many failures with the same SQLSTATE and no row written in between; "
        "0 for no limit.",
    )
