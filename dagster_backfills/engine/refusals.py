"""How many failures in a row are still single units' own. Not here: which error is a unit's at all (`failures`)."""

from dataclasses import dataclass

from dagster_backfills.engine.failures import describe, is_unusual
from dagster_backfills.engine.model import Counts
from dagster_backfills.errors import UserError


@dataclass
class Refusals:
    """Failures that followed each other with one SQLSTATE and no row written in between.

    Everyday errors count until the run has written a row, since many rows side by side may break one constraint.
    Others count always: a trigger that lacks a right refuses every row from the moment on that it lacks it.
    """

    limit: int
    count: int = 0
    kind: tuple[str, str | None] = ("", None)
    written: bool = False

    def wrote(self, counts: Counts) -> None:
        """A batch is committed, with these rows in it or with none."""
        if counts.rows or counts.deleted:
            self.count, self.written = 0, True

    def failed(self, error: BaseException) -> None:
        """One more is in the ledger. Raises UserError where that makes too many."""
        name, state, message = describe(error)
        self.count = self.count + 1 if self.kind == (name, state) else 1
        self.kind = (name, state)
        if self.limit and self.count >= self.limit and (is_unusual(error) or not self.written):
            raise UserError(
                f"{self.count:,} failures in a row, each a {name}{f' (SQLSTATE {state})' if state else ''}, and no row "
                f"was written in between; the last was: {message}",
                hint="They are in the failure ledger. Mend the cause and run again, or raise max_failures_in_a_row.",
            ) from error
