"""Options and progress of an import. Imports little, because every code location loads it."""

from dataclasses import dataclass

from dagster_backfills.domains.kintell.importing.claims import LEASE_SECONDS

MAX_BATCH_ROWS = 50_000


@dataclass(frozen=True)
class Options:
    """Options of one import attempt."""

    batch_rows: int = 20_000
    max_errors: int | None = None
    max_error_ratio: float | None = None
    create_missing_users: bool = False
    lease: float = LEASE_SECONDS


@dataclass(frozen=True)
class Progress:
    """Progress after a committed batch. `rows_per_second` and `seconds_left` are based on this attempt."""

    processed: int
    total: int
    failed: int
    rows_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        percent = 100 * self.processed / self.total if self.total else 100.0
        return (
            f"{percent:.1f} % ({self.processed:,} of {self.total:,} rows), {self.rows_per_second:,.0f} rows/s, "
            f"{self.seconds_left:.0f} s left, {self.failed:,} rejected"
        )
