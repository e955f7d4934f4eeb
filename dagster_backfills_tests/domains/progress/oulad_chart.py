"""Draws the tutorial's chart of real data: `python -m dagster_backfills_tests.domains.progress.oulad_chart FILE.svg`.

The figures are those that the assets wrote for the Open University's 22 presentations, read like by a dashboard.
"""

import sys
import tempfile
from pathlib import Path

import psycopg

from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills_tests.domains.progress.oulad import load_oulad, oulad_folder
from dagster_backfills_tests.domains.progress.test_oulad import run_the_job

_READ = """
select cohort_id, total_students, average_completion
from progress.cohort_dashboard
order by cohort_id
"""


def draw(rows: list[tuple[str, int, int]], file: Path) -> None:
    """One bar per presentation: the mean completion of its active students. Their number is at the bar's end."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "oulad"  # the same file for the same figures
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    names, students, completion = zip(*reversed(rows), strict=True)
    bars = axes.barh(names, completion, color="#4b6bfb", height=0.7)
    axes.bar_label(bars, [f"{n:,} students" for n in students], padding=4, fontsize=7, color="#555")
    axes.set(
        xlim=(0, 112), xlabel="mean completion of active students, %", title="22 presentations, one backfill"
    )
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    file, root = Path(sys.argv[1]), Path(__file__).resolve().parents[3]
    with tempfile.TemporaryDirectory() as state:
        server = EmbeddedServer(Path(state))
        server.start()
        try:
            url = server.url()
            apply_migrations(url)
            with psycopg.connect(url, autocommit=True) as conn:
                load_oulad(conn, oulad_folder(root))
                keys = [row[0] for row in conn.execute("select id from progress.cohorts order by id")]
            run_the_job(url, keys)
            with psycopg.connect(url) as conn:
                draw(conn.execute(_READ).fetchall(), file)
        finally:
            server.delete()


if __name__ == "__main__":
    main()
