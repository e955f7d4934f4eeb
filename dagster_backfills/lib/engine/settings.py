"""How the engine works, as opposed to what it writes. Every number is configuration."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """Sizes are in units (users, members; partitions where a write names no units), times in seconds.

    batch_units: size of the first batch; `min_batch_units` and `max_batch_units` are the floor and the ceiling.
    target_seconds: what a batch should take; its size follows. 0 keeps the size as it is.
    statement_timeout, lock_timeout: of each statement in a batch; 0 is none.
    work_mem: of each sort and hash in a batch, in Postgres's notation.
    random_page_cost: the planner's price of a page by index, in a batch. Near one, a small part of a large table
        is read by its index rather than with all the rest.
    delay_seconds: a rest between two batches.
    max_lock_waiters, max_replica_lag_bytes, max_transaction_age: beyond these the database is not well, and the
        engine shrinks its batches and waits, at most `max_pause_seconds` before each batch; 0 looks at none.
    conflict_retries: tries more for a batch that met a deadlock or a serialization failure.
    reconnect_seconds: how long a lost server is waited for.
    """

    batch_units: int = 10_000
    min_batch_units: int = 1
    max_batch_units: int = 200_000
    target_seconds: float = 1.0
    statement_timeout: float = 300.0
    lock_timeout: float = 5.0
    work_mem: str = "64MB"
    random_page_cost: float = 1.1
    delay_seconds: float = 0.0
    max_lock_waiters: int = 20
    max_replica_lag_bytes: int = 1 << 30
    max_transaction_age: float = 0.0
    max_pause_seconds: float = 30.0
    conflict_retries: int = 5
    reconnect_seconds: float = 120.0
