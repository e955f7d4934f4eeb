"""Mapping headers to columns: given by the user, and remembered for files with the same headers."""

import pytest

from dagster_backfills.domains.kintell.after.error_file import stream_errors
from dagster_backfills.domains.kintell.file.columns import parse_pairs
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, csv_text, row, state

GERMAN = ",".join(COLUMNS).replace("session_id", "Kennung").replace("session_type", "Art der Sitzung")
MAPS = ["Kennung=session_id", "art der sitzung = Session Type"]
SAID = "Kennung is session_id, Art der Sitzung is session_type"


@pytest.fixture
def place(conn, tmp_path):
    add_users(conn)

    def write(header=GERMAN, rows=None, name="any.csv", delimiter=","):
        lines = csv_text(rows or [row(1), row(2)]).split("\n")
        path = tmp_path / name
        path.write_text("\n".join([header, *lines[1:]]).replace(",", delimiter))
        return str(path)

    return write


@pytest.fixture
def bring(conn, database_url, tmp_path):
    def run(url, *maps):
        job = register(conn, url, [str(tmp_path)], read_as=ReadOptions(mapping=parse_pairs(maps))).job
        return run_import(database_url, job, Options(), [str(tmp_path)])

    return run


def ids(conn):
    return [session[0] for session in state(conn)["sessions"]]


def test_a_given_mapping_is_used_shown_and_remembered_for_the_same_headers(place, bring, conn, tmp_path):
    assert bring(place(), *MAPS).recognized == f"CSV with commas, UTF-8; as given: {SAID}"
    turned = ",".join(reversed(GERMAN.split(",")))
    lines = [",".join(reversed(list(row(n).values()))) for n in (3, 5)]
    path = tmp_path / "next.csv"
    path.write_text("\n".join([turned, *lines]).replace(",", ";"))
    verdict = validate(conn, str(path), [str(tmp_path)])
    assert verdict.new == 2
    assert "CSV with semicolons, UTF-8; as remembered since 2" in verdict.recognized
    assert bring(str(path)).inserted_rows == 2
    assert ids(conn) == ["s-000001", "s-000002", "s-000003", "s-000005"]


def test_another_set_of_headers_is_not_mapped(place, bring):
    bring(place(), *MAPS)
    with pytest.raises(FileError, match=r'lacks the required columns session_id.*--map "HEADER=session_id"'):
        bring(place(GERMAN + ",Bemerkung", name="other.csv"))


def test_a_dry_run_remembers_nothing(place, bring, conn, tmp_path):
    options = ReadOptions(mapping=parse_pairs(MAPS))
    assert validate(conn, place(), [str(tmp_path)], read_as=options).new == 2
    with pytest.raises(FileError, match="lacks the required columns"):
        bring(place())


def test_a_new_mapping_replaces_the_remembered_one(place, bring, conn):
    header = ",".join(COLUMNS).replace("feedback_text", "Notiz")
    rows = [row(1, feedback_text="kept")]
    bring(place(header, rows), "Notiz=feedback_text")
    bring(place(header, [row(2, feedback_text="left out")], "b.csv"), "Notiz=")
    third = bring(place(header, [row(3, feedback_text="left out")], "c.csv"))
    assert [session[8] for session in state(conn)["sessions"]] == ["kept", None, None]
    assert third.recognized.endswith("Notiz is left out")


def test_an_error_file_keeps_mapped_headers_and_can_be_imported(place, bring, conn, tmp_path):
    done = bring(place(rows=[row(1), row(2, rating="9")]), *MAPS)
    text = "".join(stream_errors(conn, done))
    assert text.startswith(GERMAN)
    fixed = tmp_path / "fixed.csv"
    fixed.write_text(text.replace(',"9",', ',"4",'))
    assert bring(str(fixed)).inserted_rows == 1


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["Kennung=sesion_id"], "There is no column sesion_id to map Kennung to; `session_id` comes closest"),
        (["Kennung=xyz"], "There is no column xyz to map Kennung to. The columns: session_id, "),
        (["Kennung"], "Kennung is not a mapping. Use"),
        (["=session_id"], "=session_id is not a mapping"),
        (["a=date", "b=date"], "date is mapped more than once"),
        (["Kenung=session_id"], "has no header kenung to map to session_id; `Kennung` comes closest"),
        (["Kennung=date"], "lacks the required columns|has the column date more than once: Kennung, date"),
    ],
)
def test_an_invalid_mapping_is_refused_with_the_closest_match(place, bring, maps, message):
    with pytest.raises(UserError, match=message):
        bring(place(), *maps)


def test_a_header_with_an_equals_sign_can_be_mapped(place, bring):
    assert bring(place(GERMAN.replace("Kennung", "id=nr")), "id=nr=session_id", MAPS[1]).inserted_rows == 2
