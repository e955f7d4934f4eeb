"""The commands, against a real database and with real runs."""

import codecs
import json
import signal
import subprocess
import time

import openpyxl
import pytest
from typer.testing import CliRunner

from dagster_backfills.cli.errors import INTERRUPTED, USAGE, explain
from dagster_backfills.cli.kintell.commands import app
from dagster_backfills.domains.kintell.after.rollback import roll_back
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, mixed_rows, row, write_csv
from dagster_backfills_tests.domains.kintell.workbooks import workbook
from dagster_backfills_tests.programs import SCRIPT, ForkingPopen, start_reading


@pytest.fixture
def call(conn, database_url, tmp_path, monkeypatch):
    """Call a command; returns its exit code and stdout. Errors meant for people are raised."""
    add_users(conn)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(subprocess, "Popen", ForkingPopen)
    monkeypatch.setenv("KINTELL_ALLOWED_LOCATIONS", str(tmp_path))
    monkeypatch.setenv("KINTELL_ERROR_FILES", str(tmp_path / "errors"))
    monkeypatch.chdir(tmp_path)

    output: list[str] = []

    def run(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, Exception):
            raise result.exception
        output.append(result.stderr)
        return result.exit_code, result.stdout

    run.output = output  # type: ignore[attr-defined]
    return run


@pytest.fixture
def imported(conn, database_url, tmp_path):
    def run(rows, **options):
        job = register(conn, str(write_csv(tmp_path / "a.csv", rows)), [str(tmp_path)]).job
        return run_import(database_url, job, Options(**{"batch_rows": 25, **options}), [str(tmp_path)])

    return run


def test_the_template_is_a_file_that_can_be_imported(call, conn, tmp_path):
    (tmp_path / "template.csv").write_text(call("template")[1])
    _, out = call("missing-users", "template.csv", "--json")
    assert json.loads(out)["users"] == [
        {"email": "participant@example.com", "role": "participant"},
        {"email": "volunteer@example.com", "role": "volunteer"},
    ]


def test_status_errors_and_the_preview_of_a_rollback_read_the_database(call, imported, tmp_path):
    job = imported(mixed_rows(50))
    code, out = call("status", "--json")
    assert (code, [j["id"] for j in json.loads(out)]) == (0, [str(job.id)])
    assert json.loads(call("status", str(job.id), "--json")[1])["inserted_rows"] == 45
    assert f"{job.id}\ta.csv\tcompleted\t5\t50\t50\t45" in call("status")[1]
    assert call("errors", str(job.id))[1].count("\n") == 6
    call("errors", str(job.id), "-o", "out.csv")
    assert (tmp_path / "out.csv").read_text() == call("errors", str(job.id))[1]
    assert json.loads(call("rollback", str(job.id), "--json")[1])["removes"] == 45


def test_an_error_workbook_is_written_to_a_url_too(call, imported, tmp_path):
    job = imported([row(1), row(2, rating="9")])
    call("errors", str(job.id), "-o", f"file://{tmp_path}/deep/out.xlsx")
    assert openpyxl.load_workbook(tmp_path / "deep" / "out.xlsx").active.max_row == 2


@pytest.mark.parametrize(
    ("output", "message"),
    [(".", "is a folder. Name a file in it"), ("nowhere://a.csv", "can't be opened: .*nowhere")],
)
def test_an_output_that_is_no_file_is_refused(call, imported, tmp_path, output, message):
    job = imported([row(1), row(2, rating="9")])
    before = sorted(tmp_path.iterdir())
    for command in (["errors", str(job.id)], ["validate", "a.csv"]):
        with pytest.raises(UserError, match=message):
            call(*command, "-o", output)
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_refuses_to_name_its_csv_a_workbook(call, tmp_path):
    write_csv(tmp_path / "a.csv", [row(1, rating="9")])
    with pytest.raises(UserError, match="writes CSV"):
        call("validate", "a.csv", "-o", "rejected.xlsx")
    code, _ = call("validate", "a.csv", "-o", "rejected.csv", "--json")
    assert (code, "Invalid rating: 9" in (tmp_path / "rejected.csv").read_text()) == (1, True)


def test_an_invalid_option_is_refused_before_the_file_is_registered(call, conn, tmp_path):
    write_csv(tmp_path / "a.csv", [row(1)])
    with pytest.raises(UserError, match=r"max_error_ratio: .* less than or equal to 1"):
        call("start", "a.csv", "--max-error-ratio", "5")
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)


def test_a_job_is_found_by_a_prefix_of_its_id_and_by_its_file_name(call, imported):
    job = imported(mixed_rows(50))
    for known in (str(job.id), str(job.id)[:8], str(job.id).upper(), "a.csv", "A"):
        assert json.loads(call("status", known, "--json")[1])["id"] == str(job.id)
    with pytest.raises(UserError, match=r"Did you mean .* \(a\.csv\)"):
        call("errors", "b.csv")


def test_a_job_shows_its_most_frequent_errors_with_a_row_and_its_value(call, imported):
    job = imported([row(1), row(2, rating="9"), row(3, rating="8"), row(4, duration_min="x")])
    _, out = call("status", str(job.id))
    assert "error\trows\tfirst row\tits value\nInvalid rating\t2\t2\t9\nInvalid duration\t1\t4\tx\n" in out
    found = json.loads(call("status", str(job.id), "--json")[1])["frequent_errors"]
    assert [(each["error"], each["rows"], each["row"]) for each in found] == [
        ("Invalid rating", 2, 2),
        ("Invalid duration", 1, 4),
    ]


def test_an_error_file_with_non_ascii_text_begins_with_a_byte_order_mark(call, imported, tmp_path):
    for name in ("Ana", "Añá"):
        job = str(imported([row(1), row(2, rating="9", feedback_text=name)]).id)
        call("errors", job, "-o", "out.csv")
        assert (tmp_path / "out.csv").read_bytes().startswith(codecs.BOM_UTF8) is (name != "Ana")
        assert not call("errors", job)[1].startswith("\ufeff")


def test_an_import_that_is_rolled_back_is_not_shown_as_rows_inserted(call, imported, database_url):
    job = imported([row(i) for i in range(40)])
    roll_back(database_url, job.id)
    assert f"{job.id}\ta.csv\trolled_back\t0\t40\t40\t0\t0\t0" in call("status")[1]
    _, out = call("status", str(job.id))
    assert "inserted\t0\n" in out
    assert "removed\t40\n" in out


def test_pausing_or_cancelling_a_finished_job_is_a_clear_error(call, imported):
    job = imported([row(1, rating="9")], max_errors=0)
    with pytest.raises(UserError, match="and can't be paused"):
        call("pause", str(job.id))
    assert json.loads(call("cancel", str(job.id), "--json")[1])["status"] == "cancelled"
    with pytest.raises(UserError, match="There is no import job 'nonsense'"):
        call("status", "nonsense")
    with pytest.raises(UserError, match="There is no import job"):
        call("pause", "00000000-0000-0000-0000-000000000000")
    with pytest.raises(UserError, match="Choose skip, update or error"):
        call("start", "a.csv", "--on-duplicate", "replace")


@pytest.mark.parametrize("command", ["start", "validate"])
@pytest.mark.parametrize(
    ("file", "output"),
    [
        ("none.csv", "does not exist"),
        ("bda.csv", "Did you mean bad.csv"),
        ("/etc/passwd", "is not in an allowed location"),
        ("ftp://127.0.0.1:1/a.csv", "is not in an allowed location"),
        ("bad.csv", "lacks the required columns session_id"),
        (".", "is a folder"),
    ],
)
def test_a_file_is_checked_before_a_run_is_launched(call, tmp_path, monkeypatch, command, file, output):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr("dagster_backfills.cli.run_process.run_job", None)
    with pytest.raises(UserError, match=output) as caught:
        call(command, file)
    code, message, _ = explain(caught.value)
    assert (code, "\n" in message) == (USAGE, False)


def test_a_job_is_checked_before_a_run_is_launched(call, conn, imported, tmp_path, monkeypatch):
    monkeypatch.setattr("dagster_backfills.cli.run_process.run_job", None)
    job = imported([row(1), row(2, rating="9")])
    with pytest.raises(UserError, match="is completed and can't be resumed"):
        call("resume", str(job.id))
    path = write_csv(tmp_path / "b.csv", [row(3)])
    waiting = register(conn, str(path), [str(tmp_path)]).job
    for command in ("replay", "rollback"):
        with pytest.raises(UserError, match="is pending and can't be"):
            call(command, str(waiting))
    write_csv(path, [row(4)])
    with pytest.raises(UserError, match="has changed since job"):
        call("resume", str(waiting))


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_an_interrupted_import_shows_its_progress_and_how_to_resume(call, conn, tmp_path):
    write_csv(tmp_path / "a.csv", [row(i) for i in range(20_000)])
    run = start_reading([SCRIPT, "kintell", "start", "a.csv", "--batch-rows", "20"])
    begun = "select exists (select from kintell.backfill_jobs where processed_rows > 0)"
    while run.poll() is None and not conn.execute(begun).fetchone()[0]:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, output = run.communicate()
    job, status, done = conn.execute(
        "select id, status, processed_rows from kintell.backfill_jobs"
    ).fetchone()
    assert (run.returncode, status) == (INTERRUPTED, "paused"), output
    assert f"Job {job} is paused after {done:,} of 20,000 rows" in output
    assert f"To continue: backfills kintell resume {job}\n" in output
    assert json.loads(call("resume", str(job), "--json")[1])["inserted_rows"] == 20_000


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_job_from_validation_to_rollback(call, conn, tmp_path):
    write_csv(tmp_path / "a.csv", [*mixed_rows(40), row(50, participant_email="new@example.com")])
    code, out = call("validate", "a.csv", "--json", "-o", "rejected.csv")
    assert (code, json.loads(out)["new"], json.loads(out)["failed"]) == (1, 36, 5)
    assert (tmp_path / "rejected.csv").read_text().count("_error_row") == 1
    code, _ = call("start", "a.csv")
    rejected = call.output[-1].splitlines()
    assert rejected[-2].startswith("5 rows were rejected. The first is row ")
    job = json.loads(call("status", "a.csv", "--json")[1])
    assert rejected[-1] == f"To see all: backfills kintell errors {job['id']} -o FILE"
    assert (code, job["status"], job["inserted_rows"], job["failed_rows"]) == (1, "completed", 36, 5)
    code, out = call("replay", job["id"], "--create-missing-users", "--json")
    assert (code, json.loads(out)["inserted_rows"], json.loads(out)["failed_rows"]) == (0, 38, 3)
    became = "2 of 5 rejected rows were imported, 3 are still rejected."
    assert became in call.output[-1] and f"backfills kintell errors {job['id']} -o FILE" in call.output[-1]
    code, out = call("rollback", job["id"], "--json")
    assert (code, json.loads(out)["removes"], json.loads(out)["dry_run"]) == (0, 38, True)
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (38,)
    code, out = call("rollback", job["id"], "--execute", "--yes", "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["removed_rows"]) == (0, "rolled_back", 38)
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (0,)


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_named_sheet_with_mapped_headers_is_imported_and_its_format_shown(call, tmp_path):
    rows = [list(row(n).values()) for n in range(3)]
    header = ["Kennung", *list(COLUMNS)[1:]]
    data = workbook([header, *rows], more={"Notes": [["call them"]]})
    (tmp_path / "book.xlsx").write_bytes(data)
    output = ["book.xlsx", "--sheet", "Sessions", "--map", "Kennung=session_id"]
    code, out = call("validate", *output, "--json")
    verdict = json.loads(out)
    assert (code, verdict["new"]) == (0, 3)
    assert verdict["recognized"] == "workbook, sheet Sessions; as given: Kennung is session_id"
    code, out = call("start", *output, "--json")
    assert (code, json.loads(out)["inserted_rows"]) == (0, 3)
    (tmp_path / "next.xlsx").write_bytes(workbook([header, list(row(7).values())]))
    code, out = call("start", "next.xlsx", "--json")
    assert (code, json.loads(out)["inserted_rows"]) == (0, 1)
    assert "as remembered since" in json.loads(out)["recognized"]
