"""Files as people and programs write them: each is read correctly or refused with a clear message."""

import codecs
import gzip

import pytest

from dagster_backfills.domains.kintell.file.dialect import to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.header import read_header
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import load_job
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, csv_text, row, state

HEADER = ",".join(COLUMNS)
BLANKS = b"\r\n" * 200_000


def line(name, **changes):
    """A good row of the sample's users, on one line."""
    return csv_text([row(1, session_id=name, **changes)]).split("\n", 1)[1].rstrip("\n")


@pytest.fixture
def bring(conn, database_url, tmp_path, monkeypatch):
    """Import bytes. Returns the job; trouble on the way, a second look at what was written say, is a failure."""
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))
    for address, role in (
        ("participant1", "participant"),
        ("volunteer1", "volunteer"),
        ("j\u00fcrgen", "participant"),
    ):
        conn.execute(
            "insert into kintell.users (email, name, role) values (%s, 'x', %s)",
            [f"{address}@example.com", role],
        )

    def run(data, batch_rows=2, **options):
        path = tmp_path / "any.csv"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        job = register(conn, str(path), [str(tmp_path)]).job
        options = Options(batch_rows=batch_rows, **options)
        return run_import(database_url, job, options, [str(tmp_path)], on_trouble=pytest.fail)

    return run


def ids(conn):
    return [session[0] for session in state(conn)["sessions"]]


def errors(conn):
    return [(error[0], error[1]) for error in state(conn)["errors"]]


def test_rows_with_only_delimiters_are_skipped(bring, conn):
    text = "\r\n".join([HEADER, line("a"), ",,,,,,,,", line("b", rating="9"), *[" , ,,,,,,,\u200b"] * 3, ""])
    job = bring(text)
    assert (job.total_rows, job.inserted_rows, errors(conn)) == (2, 1, [(2, "Invalid rating: 9")])


@pytest.mark.parametrize("blanks", [b"\r\n" * 1500, BLANKS, b"," * 8 + b"\n" + BLANKS])
def test_the_checkpoint_moves_past_a_long_run_of_blank_lines(bring, conn, monkeypatch, blanks):
    monkeypatch.setattr("dagster_backfills.domains.kintell.file.reader.MAX_BLOCK_BYTES", 100_000)
    monkeypatch.setattr("dagster_backfills.domains.kintell.file.reader.CHUNK_BYTES", 100_000)
    rows = [line(name).encode() + b"\r\n" for name in "abc"]
    job = bring(HEADER.encode() + b"\r\n" + rows[0] + blanks + rows[1] + rows[2] + blanks)
    assert (job.status, job.inserted_rows) == ("completed", 3)
    assert job.checkpoint_offset == job.file_size
    reach = conn.execute(
        "select byte_from, byte_to from kintell.backfill_job_batches order by batch_no"
    ).fetchall()
    assert [begin for begin, _ in reach][1:] == [end for _, end in reach][:-1]
    assert max(end - begin for begin, end in reach) < 300_000


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "\r\r\n" + line("a") + "\r\r\n" + line("b") + "\r\r\n",
        HEADER + "\r\r\n" + line("a") + "\r\n" + line("b") + "\r\n",
        HEADER + "\r\n" + line("a") + "\n" + line("b"),
        HEADER + "\r" + line("a") + "\r\n" + line("b") + "\r\x1a",
        HEADER + "\r\n" + line("a") + "\r" + line("b") + "\r\n\x1a",
        HEADER + "\n" + line("a") + "\n" + line("b") + "\x1a",
    ],
    ids=["cr cr lf", "odd header", "mixed", "cr", "ctrl-z", "ctrl-z after the row"],
)
def test_any_mix_of_line_breaks_ends_a_row_and_is_not_part_of_a_value(bring, conn, text):
    job = bring(text)
    assert (ids(conn), job.failed_rows) == (["a", "b"], 0)
    assert {session[9] for session in state(conn)["sessions"]} == {None}


def test_a_line_feed_in_a_value_without_quotes_ends_the_row(bring, conn):
    broken = line("b", feedback_text="first\nsecond", language_level="B2").replace('"', "")
    bring("\r".join([HEADER, line("a"), broken, line("c"), ""]))
    assert ids(conn) == ["a", "c"]
    assert errors(conn) == [(2, "Expected 9 columns, found 8"), (3, "Expected 9 columns, found 2")]


def test_a_header_cut_by_a_line_end_gives_ragged_rows_and_no_session(bring, conn):
    bring(HEADER.replace("rating", "rat\ring") + "\n" + line("a") + "\n")
    assert ids(conn) == []
    assert errors(conn) == [(1, "Expected 7 columns, found 3"), (2, "Expected 7 columns, found 9")]


def test_invisible_characters_are_not_part_of_a_value(bring, conn):
    bring(
        "\n".join(
            [
                "\ufeff\ufeff" + HEADER.replace(",date", ",\u200bdate").replace("rating", "rating\u00a0"),
                line("n1", participant_email="participant1@example.com\u00a0"),
                line("n2", participant_email="\u200bparticipant1@example.com"),
                line("n3", session_type="Language\u00a0Connect"),
                line("n4", session_type="\ufeffMentorship"),
                line("n5\u200b"),
                line("\u2060n5"),
            ]
        )
    )
    assert ids(conn) == ["n1", "n2", "n3", "n4", "n5"]
    assert errors(conn) == [(6, "Duplicate session_id in file: n5")]


def test_an_address_matches_in_nfc_nfd_and_upper_case(bring, conn):
    names = ("j\u00fcrgen", "ju\u0308rgen", "J\u00dcRGEN", "JU\u0308RGEN")
    rows = [line(f"u{n}", participant_email=f"{name}@example.com") for n, name in enumerate(names)]
    job = bring("\n".join([HEADER, *rows]), create_missing_users=True)
    assert job.inserted_rows == 4
    assert conn.execute("select count(*) from kintell.users").fetchone() == (3,)


def test_words_that_other_programs_read_as_null_are_text(bring, conn):
    words = ["NULL", "N/A", "None", "nan", "-", "\\N", "007", "1E5", "true"]
    bring("\n".join([HEADER, *(line(word, feedback_text=word) for word in words)]))
    assert {(s[0], s[8]) for s in state(conn)["sessions"]} == {(word, word) for word in words}


FORMS = {
    "commas": (lambda text: text.encode(), "CSV with commas, UTF-8"),
    "semicolons": (lambda text: text.replace(",", ";").encode("utf-8-sig"), "CSV with semicolons, UTF-8"),
    "tabs": (lambda text: text.replace(",", "\t").encode(), "CSV with tabs, UTF-8"),
    "sep=": (
        lambda text: f"sep=,\r\n{text}".encode(),
        "CSV with commas, UTF-8, a sep= line before the header",
    ),
    "sep=|": (
        lambda text: b'\xef\xbb\xbf"SEP=|"\n' + text.replace(",", "|").encode(),
        "CSV with pipes, UTF-8, a sep= line before the header",
    ),
    "utf-16": (
        lambda text: codecs.BOM_UTF16_LE + text.replace(",", "\t").encode("utf-16-le"),
        "CSV with tabs, UTF-16",
    ),
    "utf-16 be": (lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "CSV with commas, UTF-16"),
    "gzip": (lambda text: gzip.compress(text.encode()), "CSV with commas, UTF-8, gzip"),
    "gzip of utf-16": (
        lambda text: gzip.compress(text.replace(",", ";").encode("utf-16")),
        "CSV with semicolons, UTF-16, gzip",
    ),
}


@pytest.mark.parametrize(("made", "recognized"), FORMS.values(), ids=FORMS)
def test_every_format_is_recognized_shown_and_resumed_from_its_checkpoint(
    bring, conn, database_url, tmp_path, made, recognized
):
    rows = [line(f"\u00fc{n:02}", rating="5" if n % 2 else "9") for n in range(20)]
    job = bring(made("\r\n".join([HEADER, *rows, ""])), batch_rows=4, max_errors=3)
    assert (job.status, job.processed_rows, job.recognized) == ("failed", 8, recognized)
    done = run_import(database_url, job.id, Options(batch_rows=3), [str(tmp_path)])
    assert (done.status, done.inserted_rows, done.failed_rows) == ("completed", 10, 10)
    assert ids(conn) == [f"\u00fc{n:02}" for n in range(1, 20, 2)]
    assert done.checkpoint_offset == to_plain_csv(open_file(done.file_url, [str(tmp_path)])).size
    assert list((tmp_path / "home").rglob("*.*")) == []  # a converted copy has no name that could stay
    verdict = validate(conn, done.file_url, [str(tmp_path)])
    assert (verdict.recognized, verdict.duplicates, verdict.failed) == (recognized, 10, 10)
    assert register(conn, done.file_url, [str(tmp_path)], once=True).job == load_job(conn, job.id).id


def test_headers_are_matched_in_any_case_with_spaces_and_hyphens(bring, conn):
    header = HEADER.replace("session_id", "Session Id").replace("session_type", " SESSION-type ")
    bring(f"{header.replace('feedback_text', 'Feedback Text')}\n{line('a', feedback_text='kept')}\n")
    assert [(s[0], s[8]) for s in state(conn)["sessions"]] == [("a", "kept")]


def test_an_update_uses_columns_whose_headers_are_spelled_differently(bring, conn, database_url, tmp_path):
    bring(f"{HEADER}\n{line('a', rating='2')}\n")
    path = tmp_path / "other.csv"
    path.write_text(f"{HEADER.replace('rating', 'Rating')}\n{line('a', rating='5')}\n")
    job = register(conn, str(path), [str(tmp_path)], on_duplicate="update").job
    assert run_import(database_url, job, Options(), [str(tmp_path)]).updated_rows == 1
    assert state(conn)["sessions"][0][7] == 5


def test_trailing_delimiters_are_not_columns_but_values_in_them_are_errors(bring, conn):
    bring(
        "\n".join(
            [
                HEADER + ",,,",
                line("a") + ",,,",
                line("b") + ",",
                line("c"),
                line("d") + ",x",
                line("e") + ",,,,",
            ]
        )
    )
    assert ids(conn) == ["a", "b", "c"]
    assert errors(conn) == [(4, "Expected 9 columns, found 10"), (5, "Expected 9 columns, found 13")]


def test_a_footer_is_rejected_row_by_row(bring, conn):
    bring("\r\n".join([HEADER, line("a"), "", "Total,1", "Generated by export", ""]))
    assert ids(conn) == ["a"]
    assert errors(conn) == [(2, "Expected 9 columns, found 2"), (3, "Expected 9 columns, found 1")]


REFUSED = {
    "near": (
        HEADER.replace("participant_email", "Participant E-Mail"),
        "lacks the required column participant_email; `Participant E-Mail` comes closest to participant_email",
    ),
    "twice": ("Session Id," + HEADER, "has the column session_id more than once: Session Id, session_id"),
    "two readings": (
        "sep=;\n" + HEADER,
        "can be read in two ways.* with semicolons 1 columns.* with commas 9 columns",
    ),
    "half a gzip": (gzip.compress(HEADER.encode() * 99)[:-12], "is a damaged gzip file"),
    "half a character": (HEADER.encode("utf-16") + b"\0", "has bytes that are not UTF-16.* truncated"),
    "gzip of nothing": (gzip.compress(b""), "is empty"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_a_session_table_is_refused_with_a_clear_message(
    tmp_path, monkeypatch, data, message
):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))
    (tmp_path / "any.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(FileError, match=message):
        read_header(to_plain_csv(open_file(str(tmp_path / "any.csv"), [str(tmp_path)])))
