"""The rejected rows of an import as a file to be saved, for pages and programs alike."""

from collections.abc import Callable, Iterator

from starlette.responses import StreamingResponse

from dagster_backfills.domains.kintell.after.error_file import stream_errors
from dagster_backfills.domains.kintell.after.error_workbook import WORKBOOK, workbook_in_pieces
from dagster_backfills.domains.kintell.importing.jobs import ImportJob
from dagster_backfills.web.database import Database

CSV = "text/csv"


def rejected_rows(database: Database, job: ImportJob, kind: str = CSV) -> StreamingResponse:
    """Those of the job in one of `FORMATS`. Raises UserError for more rows than a sheet holds."""
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


# The media types that they can be had as, the first by default.
FORMATS: dict[str, tuple[str, Callable[[Database, ImportJob], Iterator[bytes]]]] = {
    CSV: ("csv", _csv),
    WORKBOOK: ("xlsx", _workbook),
}
