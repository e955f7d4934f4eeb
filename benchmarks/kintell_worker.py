"""The worker of the import's benchmark, a process of its own: what a run of Dagster does, without the run.

    python -m benchmarks.kintell_worker import|resume URL FILE BATCH_ROWS

Prints what it found as JSON. Libraries are loaded before the clock starts, as for the other ways.
"""

import json
import sys
import time
from pathlib import Path
from uuid import UUID

import psycopg


def main() -> None:
    from dagster_backfills.definitions import defs

    defs()
    idle = _memory("VmRSS")
    import pandera.polars  # noqa: F401
    import polars  # noqa: F401

    what, url, file, batch_rows = sys.argv[1:]
    found = {"import": whole, "resume": resumed}[what](url, file, int(batch_rows))
    print(json.dumps({**found, "peak_mb": _memory("VmHWM") - idle}))


def whole(url: str, file: str, batch_rows: int) -> dict[str, object]:
    """Register, preflight and import the file, with everything on."""
    from dagster_backfills.defs.kintell.account import load_job
    from dagster_backfills.defs.kintell.files import open_file
    from dagster_backfills.defs.kintell.importer import Options, run_import
    from dagster_backfills.defs.kintell.register import preflight, register

    began, cpu, folder = time.monotonic(), time.process_time(), str(Path(file).parent)
    with psycopg.connect(url, autocommit=True) as conn:
        job = register(conn, file, [folder]).job
        registered = time.monotonic()
        found = preflight(conn, open_file(file, [folder]), load_job(conn, job).header)
    checked = time.monotonic()
    done = run_import(url, job, Options(batch_rows=batch_rows), [folder])
    seconds = time.monotonic() - began
    note = (
        f"{done.inserted_rows:,} sessions, {done.failed_rows:,} rejected, {done.status}; register "
        f"{registered - began:.1f} s, preflight {checked - registered:.1f} s ({found.missing_count} users missing), "
        f"worker's CPU {time.process_time() - cpu:.1f} s"
    )
    return {"seconds": seconds, "note": note}


def resumed(url: str, file: str, batch_rows: int) -> dict[str, object]:
    """Import nine tenths of the file, pause, and go on: seconds from the start to the first batch committed."""
    from dagster_backfills.defs.kintell.account import set_status
    from dagster_backfills.defs.kintell.importer import Options, Progress, run_import
    from dagster_backfills.defs.kintell.register import register

    folder, options = str(Path(file).parent), Options(batch_rows=batch_rows)
    with psycopg.connect(url, autocommit=True) as conn:
        job: UUID = register(conn, file, [folder]).job

        def pause(progress: Progress) -> None:
            if progress.processed >= progress.total * 0.9:
                set_status(conn, job, "pause")

        paused = run_import(url, job, options, [folder], on_progress=pause)
    first: list[float] = []
    began = time.monotonic()
    done = run_import(
        url, job, options, [folder], on_progress=lambda _: first.append(time.monotonic() - began)
    )
    note = f"{done.status}; paused at row {paused.last_processed_row:,} of {done.total_rows:,}"
    return {"seconds": first[0], "rows": batch_rows, "note": note}


def _memory(what: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
