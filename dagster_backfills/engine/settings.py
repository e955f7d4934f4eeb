"""How the engine works, as opposed to what it writes. Every number is configuration, and stands here alone."""

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Sizes are in units (users, members; partitions where a write names no units), times in seconds.

    Whoever lets a deployment set them takes each field's default, bounds and description from `model_fields`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_units: int = Field(default=10_000, ge=1, description="Units (users, members) in the first batch.")
    min_batch_units: int = Field(default=1, ge=1, description="Floor of a batch, in units.")
    max_batch_units: int = Field(default=200_000, ge=1, description="Ceiling of a batch, in units.")
    target_seconds: float = Field(
        default=1.0,
        ge=0,
        description="What a batch should take; its size follows. 0 keeps the size as it is.",
    )
    statement_timeout: float = Field(
        default=300.0, ge=0, description="Seconds for each statement of a batch; 0 is no limit."
    )
    lock_timeout: float = Field(
        default=5.0, ge=0, description="Seconds to wait for a row's lock; 0 is no limit."
    )
    work_mem: str = Field(
        default="64MB", description="Memory of each sort and hash in a batch, in Postgres's notation."
    )
    random_page_cost: float = Field(
        default=1.1,
        gt=0,
        description="The planner's price of a page by index, in a batch. Near one, a small part of a large table is "
        "read by its index rather than with all the rest.",
    )
    delay_seconds: float = Field(default=0.0, ge=0, description="A rest between two batches.")
    max_lock_waiters: int = Field(
        default=20,
        ge=0,
        description="With more sessions waiting for locks, batches shrink and wait; 0 does not look.",
    )
    max_replica_lag_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="With a replica further behind, batches shrink and wait; 0 does not look.",
    )
    max_transaction_age: float = Field(
        default=0.0,
        ge=0,
        description="With a transaction open for longer, batches shrink and wait; 0 does not look.",
    )
    max_pause_seconds: float = Field(
        default=30.0, ge=0, description="The longest wait before a batch for an overloaded database."
    )
    conflict_retries: int = Field(
        default=5,
        ge=0,
        description="Tries more for a batch that met a deadlock, a serialization failure or a lost connection.",
    )
    retry_seconds: float = Field(
        default=0.1,
        gt=0,
        description="Rest before the second try of a batch, or look at an overloaded database; twice as long "
        "before each further one.",
    )
    max_retry_seconds: float = Field(
        default=2.0, gt=0, description="The longest rest between two tries or looks."
    )
    reconnect_seconds: float = Field(default=120.0, ge=0, description="How long a lost server is waited for.")
    max_losses_in_a_row: int = Field(
        default=100,
        ge=0,
        description="A run ends that has lost more connections than this with no batch committed in between.",
    )
    journal: bool = Field(
        default=True,
        description="Keep what stood before of each row that is changed, so that a run can be undone.",
    )
    max_failures_in_a_row: int = Field(
        default=1_000,
        ge=0,
        description="A run ends after so many failures with one SQLSTATE and no row written in between; "
        "0 is no limit.",
    )
