"""The worker process of the import benchmark: does what a Dagster run does, without Dagster.

    python -m benchmarks.kintell_worker import|pause|resume URL FILE BATCH_ROWS

Prints the measurements as JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import psycopg


def main() -> None:
    from dagster_backfills.definitions import defs

    defs()
    what, url, file, batch_rows = sys.argv[1:]
    idle = _memory("VmRSS")
    result = {"import": whole, "pause": paused, "resume": resumed}[what](url, file, int(batch_rows))
    print(json.dumps({**result, "peak_mb": _memory("VmHWM") - idle}))


def whole(url: str, file: str, batch_rows: int) -> dict[str, object]:
    """Register, preflight and import the file, with everything on.

    As for the other ways, libraries are loaded before the clock starts.
    """
    import pandera.polars  # noqa: F401

    from dagster_backfills.domains.kintell.file.register import register
    from dagster_backfills.domains.kintell.importing.importer import Options, run_import

    began, cpu, folder = time.monotonic(), time.process_time(), str(Path(file).parent)
    with psycopg.connect(url, autocommit=True) as conn:
        registration = register(conn, file, [folder])
    registered = time.monotonic()
    done = run_import(url, registration.job, Options(batch_rows=batch_rows), [folder])
    seconds = time.monotonic() - began
    note = (
        f"{done.inserted_rows:,} sessions, {done.failed_rows:,} rejected, {done.status}; register and preflight "
        f"{registered - began:.1f} s ({len(registration.preflight.missing)} users missing), "
        f"worker's CPU {time.process_time() - cpu:.1f} s"
    )
    return {"seconds": seconds, "note": note}


def paused(url: str, file: str, batch_rows: int) -> dict[str, object]:
    """Import nine tenths of the file, then pause."""
    from dagster_backfills.domains.kintell.file.register import register
    from dagster_backfills.domains.kintell.importing.importer import Options, Progress, run_import
    from dagster_backfills.domains.kintell.importing.jobs import load_job, set_status

    folder, began = str(Path(file).parent), time.monotonic()
    with psycopg.connect(url, autocommit=True) as conn:
        job = register(conn, file, [folder]).job

        def pause(progress: Progress) -> None:
            if progress.processed >= progress.total * 0.9 and load_job(conn, job).status == "running":
                set_status(conn, job, "pause")

        done = run_import(url, job, Options(batch_rows=batch_rows), [folder], on_progress=pause)
    return {"seconds": time.monotonic() - began, "note": f"{done.status} at row {done.last_processed_row:,}"}


def resumed(url: str, file: str, batch_rows: int) -> dict[str, object]:
    """Resume the paused job. Measures the seconds from the start of the import until the rows of the first batch are
    checked, and until the batch is committed. The time to load libraries is reported separately.
    """
    from dagster_backfills.domains.kintell.importing import importer
    from dagster_backfills.domains.kintell.importing.jobs import list_jobs
    from dagster_backfills.domains.kintell.rows import batches, schemas

    first: dict[str, float] = {}
    validate_values = batches.validate_values

    def begin(rows: Any) -> Any:
        first.setdefault("begun", time.monotonic() - began)
        return validate_values(rows)

    batches.validate_values = begin  # called when the first batch has been read and parsed
    with psycopg.connect(url, autocommit=True) as conn:
        job = list_jobs(conn, 1)[0]
    loading = time.monotonic()
    schemas.text_rows(), schemas.session_rows()
    began = time.monotonic()
    done = importer.run_import(
        url,
        job.id,
        importer.Options(batch_rows=batch_rows),
        [str(Path(file).parent)],
        on_progress=lambda _: first.setdefault("committed", time.monotonic() - began),
    )
    note = (
        f"until the first rows after {job.last_processed_row:,} are checked; committed after "
        f"{first['committed']:.2f} s; libraries {began - loading:.2f} s before; {done.status}"
    )
    return {"seconds": first["begun"], "note": note}


def _memory(what: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
