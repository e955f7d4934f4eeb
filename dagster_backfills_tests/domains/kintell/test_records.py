import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.kintell.file.fields import split_fields
from dagster_backfills.domains.kintell.file.records import TEXT_AFTER_QUOTE, UNTERMINATED, NoLineBreak, scan

LF, CR = 10, 13
soup = st.text(alphabet='a",\n\r ', max_size=60).map(str.encode)


def records_of(block: bytes, at_end: bool = True, line_break: int = LF) -> list[tuple[bytes, str | None]]:
    found = scan(block, at_end, line_break)
    return [
        (block[s:e], found.odd.get(i)) for i, (s, e) in enumerate(zip(found.starts, found.ends, strict=True))
    ]


def slowly(block: bytes) -> list[tuple[bytes, str | None]]:
    """The same rule, a byte at a time."""
    out, start = [], 0
    while start < len(block):
        end, problem, at, quoted, field_start = None, None, start, False, True
        while end is None:
            byte = block[at : at + 1]
            if quoted:
                if byte == b"":
                    problem = UNTERMINATED
                elif byte == b'"' and block[at + 1 : at + 2] == b'"':
                    at += 1
                elif byte == b'"':
                    quoted = False
                    rest = block[at + 1 : at + 3]
                    if not (rest[:1] in (b",", b"\n", b"") or rest in (b"\r\n", b"\r")):
                        problem = TEXT_AFTER_QUOTE
                if problem:
                    found = block.find(b"\n", start)
                    end = found if found >= 0 else len(block)
            elif byte in (b"\n", b""):
                end = at
            elif byte == b'"' and field_start:
                quoted = True
            field_start = byte == b"," and not quoted
            at += 1
        content = block[start:end]
        content = content[:-1] if content.endswith(b"\r") else content
        if content.strip():
            out.append((content, problem))
        start = end + 1
    return out


@settings(max_examples=1500, deadline=None)
@given(soup)
@example(b'a,"b\nc",d\n"x"y,1\n\n"open,2\n3')
@example(b'"a"\r\n"b"\r')
def test_the_fast_reading_agrees_with_a_reading_byte_by_byte(block):
    assert records_of(block) == slowly(block)


@settings(max_examples=800, deadline=None)
@given(soup, st.integers(1, 7))
def test_records_do_not_depend_on_where_blocks_are_cut(block, step):
    whole, pieces, at, size = records_of(block), [], 0, step
    while at < len(block):
        piece = block[at : at + size]
        at_end = at + size >= len(block)
        pieces += records_of(piece, at_end)
        consumed = scan(piece, at_end, LF).consumed
        at, size = at + consumed, size + step if consumed == 0 else step
    assert pieces == whole


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.lists(st.text(alphabet='a",\n\r x', max_size=8), min_size=2, max_size=4), min_size=1, max_size=8
    )
)
def test_what_a_csv_writer_wrote_is_read_back(rows):
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    found = records_of(out.getvalue().encode())
    assert [problem for _, problem in found] == [None] * len(rows)
    assert [[f.decode() for f in split_fields(record)] for record, _ in found] == rows


def test_separators_are_counted_outside_quotes_only():
    found = scan(b'a,"x,y",b\n1,2\n"p,""q,",2,3\n', True, LF)
    assert found.commas.tolist() == [2, 1, 2]


def test_a_file_of_carriage_returns_has_records():
    assert records_of(b'a,"b\nc"\rd,e\r', line_break=CR) == [(b'a,"b\nc"', None), (b"d,e", None)]


def test_an_unterminated_quote_costs_its_own_row_only():
    found = records_of(b'1,"oops\n2,fine\n3,"good"\n')
    assert [r for r, problem in found if problem] == [b'1,"oops']
    assert [r for r, problem in found if not problem] == [b"2,fine", b'3,"good"']


def test_a_quote_that_stays_open_past_the_limit_is_unterminated_without_reading_on():
    block = b'1,"' + b"x\n" * 300
    found = scan(block, False, LF, limit=100)
    assert found.odd[0] == UNTERMINATED
    assert block[found.starts[1] : found.ends[1]] == b"x"


def test_a_line_without_an_end_is_no_csv():
    with pytest.raises(NoLineBreak):
        scan(b"x" * 200, False, LF, limit=100)
