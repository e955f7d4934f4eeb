"""From a block's bytes to a frame of texts, and the rows whose bytes are no row. Not here: what the texts mean."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_backfills.domains.kintell.file.fields import split_fields
from dagster_backfills.domains.kintell.file.reader import KNOWN, Block, Header

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

NUL = "Row contains a NUL byte"
_LINE_FEED = 10


@dataclass
class Parsed:
    """`rows`: `row` (its index in the block) and the known columns as trimmed text, a column the file does not
    have as empty text. `broken`: index in the block of every other row, with what is wrong."""

    rows: "pl.DataFrame"
    broken: dict[int, str]


def parse(block: Block, header: Header, only: Sequence[str] = KNOWN) -> Parsed:
    """Parse a block. Rows that are not UTF-8, have a NUL byte, broken quotes or the wrong number of fields are
    set aside, each with its message; the others are parsed together. Of columns not in `only`, nothing is read."""
    import numpy as np

    records, broken = block.records, {}
    width = len(header.columns)
    for i in np.flatnonzero(records.commas != width - 1).tolist():
        if i not in records.odd:
            broken[i] = _ragged(width, int(records.commas[i]) + 1)
    for i, problem in records.odd.items():
        fields = len(split_fields(block.record(i)))
        if problem or fields != width:
            broken[i] = problem or _ragged(width, fields)
    broken |= _unreadable(block)
    keep = np.delete(np.arange(len(records)), list(broken))
    odd = {i for i in records.odd if i not in broken}
    return Parsed(_frame(block, header, keep, odd, only), dict(sorted(broken.items())))


def _ragged(expected: int, found: int) -> str:
    return f"Expected {expected} columns, found {found}"


def _unreadable(block: Block) -> dict[int, str]:
    """Rows with bytes that are no UTF-8, or with a NUL byte."""
    out: dict[int, str] = {}
    starts, ends, data = block.records.starts, block.records.ends, block.data
    if not len(starts):
        return out
    at, stop = int(starts[0]), int(ends[-1])
    view = memoryview(data)[:stop]
    while at < stop:
        try:
            codecs.utf_8_decode(view[at:], "strict", True)
            break
        except UnicodeDecodeError as error:
            i = _row_at(starts, at + error.start)
            out[i] = (
                f"Undecodable byte 0x{data[at + error.start]:02x} at position {at + error.start - int(starts[i]) + 1}"
            )
            at = int(starts[i + 1]) if i + 1 < len(starts) else stop
    nul = data.find(b"\0", 0, stop)
    while nul >= 0:
        i = _row_at(starts, nul)
        out.setdefault(i, NUL)
        nul = data.find(b"\0", int(ends[i]), stop)
    return out


def _row_at(starts: "np.ndarray", position: int) -> int:
    return int(starts.searchsorted(position, side="right")) - 1


def _frame(
    block: Block, header: Header, keep: "np.ndarray", odd: set[int], only: Sequence[str]
) -> "pl.DataFrame":
    import polars as pl

    positions = {name: at for name, at in header.positions.items() if name in only}
    empty = pl.DataFrame({name: [] for name in KNOWN}, schema=dict.fromkeys(KNOWN, pl.String))
    if not len(keep):
        return empty.with_columns(row=pl.Series([], dtype=pl.Int64))
    pieces = [
        b",".join(_quoted(f) for f in split_fields(block.record(int(keep[first]))))
        if keep[first] in odd
        else memoryview(block.data)[block.records.starts[keep[first]] : block.records.ends[keep[last]]]
        for first, last in _runs(block, keep, odd)
    ]
    names = sorted(positions, key=lambda name: positions[name])
    frame = pl.read_csv(
        b"\n".join(pieces) + b"\n",
        has_header=False,
        columns=[positions[name] for name in names],
        infer_schema=False,
    )
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    if frame.height != len(keep):
        raise RuntimeError(
            f"parsed {frame.height} rows out of {len(keep)} records after byte {block.byte_from}"
        )
    absent = [pl.lit("").alias(name) for name in KNOWN if name not in positions]
    return frame.with_columns(
        pl.Series("row", keep).cast(pl.Int64), pl.col(names).fill_null("").str.strip_chars(), *absent
    )


def _runs(block: Block, keep: "np.ndarray", odd: set[int]) -> Iterator[tuple[int, int]]:
    """First and last index in `keep` of records with nothing but a line feed between them. Odd ones stand alone."""
    import numpy as np

    if not len(keep):
        return
    starts, ends, data = block.records.starts, block.records.ends, np.frombuffer(block.data, np.uint8)
    here, following = keep[:-1], keep[1:]
    apart = (starts[following] != ends[here] + 1) | (data[ends[here]] != _LINE_FEED)
    if odd:
        alone = np.isin(keep, list(odd))
        apart |= alone[:-1] | alone[1:]
    first = 0
    for last in np.flatnonzero(apart).tolist():
        yield first, last
        first = last + 1
    yield first, len(keep) - 1


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"'


def raw_values(block: Block, i: int) -> list[str]:
    """The fields of a row as they stand in the file; what can't be stored as text becomes U+FFFD."""
    return [field.decode(errors="replace").replace("\0", "\ufffd") for field in split_fields(block.record(i))]
