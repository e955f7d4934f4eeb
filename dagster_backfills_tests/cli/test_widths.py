"""What a person sees at terminals of 80, 100 and 120 columns: whole ids, rows of one line, a screen at most."""

import sys
import uuid
from collections.abc import Callable

import psycopg
import pytest
from rich.cells import cell_len

from dagster_backfills.cli import failures, output, overview, status
from dagster_backfills.cli.follow import PartProgress, cut
from dagster_backfills.cli.kintell import commands as kintell
from dagster_backfills.cli.queue import commands as queue
from dagster_backfills_tests.programs import SCRIPT
from dagster_backfills_tests.terminal import bare, on_a_terminal

NAME = "Akademia Nadwiślańska, wydział języków 日本語コース, grupa wieczorna numer jeden"
WIDTHS = [80, 100, 120]
Screen = Callable[[int], None]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal that is so wide and has 24 lines."""

    def of(columns: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", "24")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    return of


@pytest.fixture
def full(conn: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> psycopg.Connection:
    """Long names, long ids, long messages: forty cohorts, failures, jobs, an import and a run at work."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    conn.execute("insert into progress.schools values ('s', %s)", [NAME])
    conn.execute(
        "insert into progress.cohorts select 'coh_' || md5(i::text), 's', i || ' ' || %s, now()"
        " from generate_series(1, 40) as i", [NAME]
    )  # fmt: skip
    conn.execute(
        "insert into backfill.failures (run_id, asset, partition, unit, error_class, message)"
        " select 'r', 'progress/user_progress_stats', id, 'user_' || id, 'DataError', %s from progress.cohorts",
        [f"new row for relation violates check constraint: {NAME}"],
    )
    conn.execute(
        "select jobs.enqueue_background_job('transcription', %s)", ['{"audio_url": "https://a.test/b"}']
    )
    conn.execute(
        "insert into backfill.runs (run_id, root_run_id, assets, partitions, units)"
        " values (%s, 'r', '{progress/user_progress_stats,progress/cohort_stats}', 4000, 1000000)",
        [str(uuid.uuid4())],
    )
    conn.execute(
        "insert into kintell.backfill_jobs (status, file_name, file_url, file_size, file_sha256, file_stamp, columns,"
        " total_rows, checkpoint_offset) values ('pending', %s, '/f.csv', 1, repeat('a', 64), 's', '{a}', 12345678, 0)",
        [f"{NAME}.csv"],
    )
    return conn


COMMANDS: dict[str, tuple[Callable[[bool], object], str]] = {
    "list": (lambda wide: overview.list_(wide=wide), "select 'training_completions'"),
    "status": (lambda wide: status.status("progress", wide=wide, limit=40), "select id from progress.cohorts"),
    "failures": (lambda wide: failures.failures(wide=wide, limit=40), "select unit from backfill.failures"),
    "jobs": (lambda wide: queue.list_(wide=wide), "select id::text from jobs.background_jobs"),
    "imports": (
        lambda wide: kintell.status(wide=wide), "select id::text from kintell.backfill_jobs"
    ),
    "page": (lambda wide: status.status(wide=wide, ticks=False), "select run_id from backfill.runs"),
}  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_rows_are_one_line_and_ids_are_whole(
    name: str, width: int, screen: Screen, full: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    command, ids = COMMANDS[name]
    screen(width)
    command(False)
    lines = bare(capsys.readouterr().out).splitlines()
    assert max(map(cell_len, lines)) <= width
    for (each,) in full.execute(ids):  # type: ignore[call-overload]
        assert sum(each in line.split("  ") or each in line.split() for line in lines) == 1
    command(True)
    wide = capsys.readouterr().out
    assert NAME in wide or name == "list" or name == "jobs"


def test_hidden_columns_are_named_and_shown_by_wide(
    screen: Screen, full: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(80)
    status.status("progress", limit=1)
    narrow = capsys.readouterr()
    assert "with stats" not in narrow.out and "with stats, classes. Use --wide to show all." in narrow.err
    status.status("progress", limit=1, wide=True)
    wide = capsys.readouterr()
    assert "with stats" in wide.out and NAME in wide.out and "--wide" not in wide.err


def test_one_screen_of_rows_is_shown_with_a_hint_to_see_the_rest(
    screen: Screen, full: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(80)
    for command in (
        lambda **more: status.status("progress", **more),
        lambda **more: failures.failures(**more),
    ):
        command()
        shown = capsys.readouterr()
        assert shown.out.count("coh_") in (18, 36)
        assert "Showing 18 of 40. Show all: --limit 40" in shown.err
        command(limit=40)
        assert "are shown" not in capsys.readouterr().err


def test_texts_are_truncated_before_columns_are_hidden(
    screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(80)
    headers = ["id", "number", "said", "at", "more"]
    output.print_table(headers, [(uuid.uuid4(), 1234567, NAME, None, NAME)], ids=["id"])
    shown = capsys.readouterr()
    assert "1,234,567" in shown.out and "…" in shown.out
    assert "Hidden: more. Use --wide to show all." in shown.err


@pytest.mark.parametrize("width", WIDTHS)
def test_a_line_of_progress_keeps_done_rate_time_left_and_failures(width: int) -> None:
    words = "1,234,567 of 5,000,000 units, 12,345/s, 1 h 02 min left, 1,234 failed"
    part = PartProgress("k", "progress/user_progress_stats, progress/cohort_stats", 1, 2, words)
    assert part.line(width).endswith(words)
    assert cell_len(part.line(width)) <= width
    assert str(part).startswith(part.name)
    assert cell_len(cut(NAME, width)) <= width


FOLLOW = """
import sys
from dagster_backfills.cli.follow import PartProgress, follow_run
words = "1,234,567 of 5,000,000 units, 12,345/s, 1 h 02 min left, 1,234 failed"
ends = iter([False, True])
part = PartProgress("k", "progress/user_progress_stats, progress/cohort_stats", 1, 2, words)
follow_run(sys.argv[1], "r", lambda: next(ends), lambda conn, run: [part], poll=0.1)
"""


@pytest.mark.programs
@pytest.mark.parametrize("width", WIDTHS)
def test_a_progress_bar_keeps_them_too(width: int, database_url: str) -> None:
    code, shown = on_a_terminal(width, sys.executable, "-c", FOLLOW, database_url)
    assert code == 0
    assert "1,234,567 of 5,000,000 units, 12,345/s, 1 h 02 min left, 1,234 failed" in shown


@pytest.mark.programs
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_a_real_terminal(width: int, full: psycopg.Connection) -> None:
    code, shown = on_a_terminal(width, SCRIPT, "status", "--no-ticks")
    assert code == 0
    lines = shown.splitlines()
    said = next(
        number for number, line in enumerate(lines) if line.startswith(("The daemon", "The state of Dagster"))
    )
    assert max(map(cell_len, lines[:said])) <= width
    assert any("pending" in line for line in lines)
