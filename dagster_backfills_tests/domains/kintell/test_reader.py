"""The CSV reader gives the right records, from any record on and with chunks of any size."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.kintell.file import reader
from dagster_backfills.domains.kintell.file.dialect import to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.header import read_header
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.file.records import (
    TEXT_AFTER_QUOTE,
    TOO_LONG,
    UNTERMINATED,
    is_blank,
    records,
)
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, csv_text, row

soup = st.text(alphabet='a",\n\r ', max_size=60).map(str.encode)
values = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=6
) | st.text(alphabet='a",;\t\n\r é', max_size=8)
ends = st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"])
LIMIT = 256 * 1024  # of a record; much less than what it is in use, for which reading takes seconds
often = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def found(data, delimiter=",", at_end=True):
    return [
        (fields, problem)
        for _, _, fields, problem in records(data, delimiter, at_end)
        if not is_blank(fields)
    ]


def slowly(data):
    """The same rule, a character at a time."""
    out, start = [], 0
    while start < len(data):
        fields, field, at, quoted, begun, problem = [], "", start, False, False, None
        while at < len(data) and not problem:
            char = data[at]
            at += 1
            if quoted and char == '"' and data[at : at + 1] == '"':
                field, at = field + '"', at + 1
            elif quoted and char == '"':
                quoted = False
                problem = TEXT_AFTER_QUOTE if data[at : at + 1] not in ("", ",", "\n", "\r") else None
            elif quoted:
                field += char
            elif char == '"' and not begun:
                quoted = begun = True
            elif char == ",":
                fields, field, begun = [*fields, field], "", False
            elif char in "\r\n":
                break
            else:
                field, begun = field + char, True
        problem = UNTERMINATED if quoted and not problem else problem
        if problem:
            at = min(i for i in (data.find("\n", start), data.find("\r", start), len(data)) if i >= 0) + 1
            fields, field = [], data[start : at - 1] if at <= len(data) else data[start:]
        if problem or not is_blank([*fields, field]):
            out.append(([*fields, field], problem))
        start = at
    return out


@pytest.fixture
def source(tmp_path):
    def made(data):
        (tmp_path / "any.csv").write_bytes(data)
        return to_plain_csv(open_file(str(tmp_path / "any.csv"), [str(tmp_path)]))

    return made


@pytest.fixture
def limited(monkeypatch):
    """Records and blocks are limited to `LIMIT` bytes."""
    monkeypatch.setattr("dagster_backfills.domains.kintell.file.records.MAX_RECORD_BYTES", LIMIT)
    monkeypatch.setattr("dagster_backfills.domains.kintell.file.records.MAX_REPARSED_BYTES", 16 * LIMIT)
    monkeypatch.setattr(reader, "MAX_BLOCK_BYTES", LIMIT)
    monkeypatch.setattr(reader, "CHUNK_BYTES", LIMIT // 4)


def rows_of(source, offset=None, first_row=1, max_rows=20_000):
    header = read_header(source)
    start = header.data_offset if offset is None else offset
    for block in read_blocks(source, header, start, first_row, max_rows):
        numbers = range(block.first_row, block.last_row + 1)
        for n in numbers:
            yield n, block.broken.get(n) or block.values_of(n)
        assert len(block) == len(numbers) <= max_rows


@settings(max_examples=400, deadline=None)
@given(soup)
@example(b'a,"b\nc",d\r"x"y,1\n\n"open,2\n3')
@example(b'"a"\r\n"b"\r')
@example(b'a","\na","\na","\n')
def test_the_reader_agrees_with_a_character_by_character_parser(data):
    assert found(data) == slowly(data.decode())


@settings(max_examples=300, deadline=None)
@given(soup, st.integers(1, 7))
def test_records_do_not_depend_on_where_the_bytes_are_cut(data, step):
    pieces, at, size = [], 0, step
    while at < len(data):
        at_end = at + size >= len(data)
        taken = list(records(data[at : at + size], ",", at_end))
        pieces += [(fields, problem) for _, _, fields, problem in taken if not is_blank(fields)]
        end = taken[-1][1] if taken else 0
        at, size = at + end, step if end else size + step
        if at_end:
            break
    assert pieces == found(data)


@often
@given(
    st.lists(st.lists(values, min_size=9, max_size=9), max_size=8),
    st.sampled_from(",;\t"),
    ends,
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.booleans(),
    st.integers(1, 4),
)
def test_csv_output_is_read_back_from_any_record_on(
    source, monkeypatch, rows, delimiter, end, quoting, mark, chunk
):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n", quoting=quoting)
    lines = []
    for each in [COLUMNS, *rows]:
        writer.writerow(each)
        lines.append(out.getvalue().removesuffix("\r\n") + end)
        out.seek(0)
        out.truncate()
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk * 7)
    read = source(("\ufeff" * mark + "".join(lines)).encode())
    expected = [(n, each) for n, each in enumerate((r for r in rows if not is_blank(r)), 1)]
    assert list(rows_of(read)) == expected
    header = read_header(read)
    assert (header.columns, header.format.delimiter) == (COLUMNS, delimiter)
    for block in read_blocks(read, header, header.data_offset, 1, 1):
        assert list(rows_of(read, block.byte_from, block.first_row)) == expected[block.first_row - 1 :]
        assert list(rows_of(read, block.byte_to, block.last_row + 1, 2)) == expected[block.last_row :]
    assert not expected or block.byte_to == read.size


@often
@given(soup, st.integers(1, 3))
def test_reading_resumed_at_any_block_gives_the_same_rows(source, data, max_rows):
    read = source((",".join(COLUMNS) + "\n").encode() + data)
    whole = list(rows_of(read))
    header = read_header(read)
    for block in read_blocks(read, header, header.data_offset, 1, max_rows):
        assert list(rows_of(read, block.byte_to, block.last_row + 1)) == whole[block.last_row :]


def test_an_unterminated_quote_costs_its_own_row_only():
    assert found(b'1,"oops\n2,fine\n3,"good"\n') == [
        (['1,"oops'], TEXT_AFTER_QUOTE),
        (["2", "fine"], None),
        (["3", "good"], None),
    ]


def test_an_unclosed_quote_costs_one_row_and_limited_memory(source, limited):
    line = ",".join(row(1).values()) + "\n"
    data = csv_text([]) + 's-0,"open\n' + line * (3 * LIMIT // len(line))
    read = source(data.encode())
    tracemalloc.start()
    count, broken = 0, {}
    header = read_header(read)
    for block in read_blocks(read, header, header.data_offset, 1, 20_000):
        count, broken = count + len(block), broken | block.broken
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert broken == {1: (TOO_LONG, 's-0,"open')}
    assert count == data.count("\n") - 1
    assert peak < 20 * LIMIT


def test_a_record_is_too_long_wherever_reading_begins(source, limited, monkeypatch):
    text = "x" * 1000 + "\n"
    long = csv_text([row(1, feedback_text=text * (LIMIT // len(text) + 1)), row(2)])
    fits = csv_text([row(1, feedback_text=text * (LIMIT // len(text) - 1)), row(2)])
    for chunk in (4 * 1024, 3 * LIMIT):
        monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
        assert next(rows_of(source(long.encode())))[1][0] == TOO_LONG
        assert [n for n, _ in rows_of(source(fits.encode()))] == [1, 2]


def test_too_many_unclosed_quotes_are_an_error_of_the_file(source, limited):
    data = csv_text([]).encode() + b'a","\n' * (2 * LIMIT // 5)
    with pytest.raises(FileError, match="too many quotes are never closed"):
        list(rows_of(source(data)))


def test_long_runs_of_blank_lines_are_skipped_block_by_block(source, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK_BYTES", 100)
    monkeypatch.setattr(reader, "MAX_BLOCK_BYTES", 1000)
    blank = b"\r\n, ,\n\xc2\xa0\n\xe2\x80\x8b\n" * 500
    first, second = (csv_text([row(n)]).encode().split(b"\n", 1)[1] for n in (1, 2))
    read = source(csv_text([]).encode() + first + blank + second + blank)
    header = read_header(read)
    blocks = list(read_blocks(read, header, header.data_offset, 1, 10))
    assert [len(block) for block in blocks if len(block)] == [1, 1]
    assert len(blocks) > 10
    assert [b.byte_from for b in blocks] == [header.data_offset, *(b.byte_to for b in blocks[:-1])]
    assert blocks[-1].byte_to == read.size
    assert max(b.byte_to - b.byte_from for b in blocks) < 2000


def test_values_are_normalized_in_the_frame_and_unchanged_in_the_row(source):
    changed = row(1, session_id="\ufeff e\u0301 ", feedback_text="\u00a0a \u200d b\u200b", rating=" 5\t")
    read = source(csv_text([changed]).encode())
    (block,) = read_blocks(read, read_header(read), read_header(read).data_offset, 1, 10)
    seen = block.frame().row(0, named=True)
    assert (seen["row"], seen["session_id"], seen["feedback_text"], seen["rating"]) == (
        1,
        "é",
        "a \u200d b",
        "5",
    )
    assert block.values_of(1) == [changed[name] for name in COLUMNS]
    assert block.frame(("date",)).row(0, named=True) == {
        **dict.fromkeys(COLUMNS, ""),
        "row": 1,
        "date": row(1)["date"],
    }
