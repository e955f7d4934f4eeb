"""Downloading the rejected rows of an import, for pages and API."""

from collections.abc import Callable, Iterator

from starlette.responses import StreamingResponse

from dagster_backfills.domains.kintell.after.error_file import stream_errors
from dagster_backfills.domains.kintell.after.error_workbook import WORKBOOK, workbook_in_pieces
from dagster_backfills.domains.kintell.importing.jobs import ImportJob
from dagster_backfills.web.database import Database

CSV = "text/csv"


def rejected_rows(database: Database, job: ImportJob, kind: str = CSV) -> StreamingResponse:
    """A job's rejected rows in one of `FORMATS`. Raises UserError if there are more than a worksheet can hold."""
    suffix, write = FORMATS[kind]
    disposition = f'attachment; filename="errors-{job.id}.{suffix}"'
    return StreamingResponse(
        write(database, job),
        media_type=kind,
        headers={"Content-Disposition": disposition, "Cache-Control": "no-store"},
    )


def _csv(database: Database, job: ImportJob) -> Iterator[bytes]:
    with database() as conn:
        for text in stream_errors(conn, job):
            yield text.encode()


def _workbook(database: Database, job: ImportJob) -> Iterator[bytes]:
    with database() as conn:
        return workbook_in_pieces(conn, job)


# By media type, the default first: the file suffix and the function that writes the rows.
FORMATS: dict[str, tuple[str, Callable[[Database, ImportJob], Iterator[bytes]]]] = {
    CSV: ("csv", _csv),
    WORKBOOK: ("xlsx", _workbook),
}
