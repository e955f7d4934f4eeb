"""Where the records of a CSV byte block begin and end, quotes respected. Pure; no parsing of values, no I/O.

Quotes follow RFC 4180: one at the beginning of a field opens it, a doubled one inside stands for itself. A quote
in the middle of an unquoted field is an ordinary character. A record whose quoting is broken ends at its first
line break, so that it costs one row and not the rest of the file.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MAX_RECORD_BYTES = 16 * 1024 * 1024
UNTERMINATED = "Unterminated quote"
TEXT_AFTER_QUOTE = "Text after a closing quote"
TOO_LONG = f"Row is longer than {MAX_RECORD_BYTES // 1024 // 1024} MB"

_QUOTE, _COMMA, _CR = 34, 44, 13


@dataclass
class Records:
    """Records of a block: `starts[i]:ends[i]` without the line break; blank ones are left out.

    `odd` are those that only the slow reading could judge, by index: a problem, or None where quotes in
    unquoted fields are harmless. `commas[i]` counts separators of the others. `consumed` is where the first
    record begins that is not in `starts`.
    """

    starts: "np.ndarray"
    ends: "np.ndarray"
    commas: "np.ndarray"
    consumed: int
    odd: dict[int, str | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)


class NoLineBreak(Exception):
    """A line goes on past every limit: what is read is no CSV file."""


def line_break_byte(line_break: str) -> int:
    """The byte that ends a record: `lf` (also CR LF) or `cr`."""
    return _CR if line_break == "cr" else 10


def scan(block: bytes, at_end: bool, line_break: int, limit: int = MAX_RECORD_BYTES) -> Records:
    """Find the records of `block`, which begins with one. What may go on past the block is left for the next.

    `at_end` says that nothing follows the block. Raises `NoLineBreak` where a line exceeds `limit`.
    """
    import numpy as np

    scanner = _Scanner(block, at_end, line_break, limit)
    scanner.run()
    starts = np.concatenate(scanner.starts) if scanner.starts else np.empty(0, np.int64)
    ends = np.concatenate(scanner.ends) if scanner.ends else np.empty(0, np.int64)
    commas = np.concatenate(scanner.counts) if scanner.counts else np.empty(0, np.int64)
    consumed = min(scanner.position, len(block))
    if line_break != _CR and len(ends):
        ends = ends - ((ends > starts) & (scanner.bytes[np.maximum(ends - 1, 0)] == _CR))
    keep = _not_blank(block, starts, ends, commas)
    odd = scanner.odd
    if not keep.all():
        where = np.cumsum(keep) - 1
        odd = {int(where[i]): problem for i, problem in odd.items() if keep[i]}
        starts, ends, commas = starts[keep], ends[keep], commas[keep]
    return Records(starts, ends, commas, consumed, odd)


def _not_blank(block: bytes, starts: "np.ndarray", ends: "np.ndarray", commas: "np.ndarray") -> "np.ndarray":
    import numpy as np

    keep = ends > starts
    # Only a record without separators can be nothing but white space.
    for i in np.flatnonzero(keep & (commas == 0)):
        keep[i] = bool(block[starts[i] : ends[i]].strip())
    return keep


class _Scanner:
    def __init__(self, block: bytes, at_end: bool, line_break: int, limit: int) -> None:
        import numpy as np

        self.block, self.at_end, self.line_break, self.limit = block, at_end, line_break, limit
        self.bytes = np.frombuffer(block, np.uint8)
        marks = (self.bytes == _QUOTE) | (self.bytes == _COMMA) | (self.bytes == line_break)
        self.marks = np.flatnonzero(marks)
        self.kinds = self.bytes[self.marks]
        self.position = 0
        self.count = 0
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        self.counts: list[Any] = []
        self.odd: dict[int, str | None] = {}

    def run(self) -> None:
        slowly = 1
        while self.position < len(self.block):
            before = self.position
            if not self.fast():
                return
            slowly = 1 if self.position - before > 65536 else min(slowly * 2, 4096)
            for _ in range(slowly):
                if self.position >= len(self.block):
                    return
                if not self.slow():
                    return

    def fast(self) -> bool:
        """Take records while the quoting is regular. True where a record is left that needs the slow reading."""
        import numpy as np

        at = self.position
        first = int(np.searchsorted(self.marks, at))
        marks, kinds = self.marks[first:], self.kinds[first:]
        quote = kinds == _QUOTE
        outside = np.cumsum(quote) & 1 == 0
        at_break = np.flatnonzero(outside & (kinds == self.line_break))
        if quote.any():
            stop = self.first_irregular(marks[quote])
            at_break = at_break[: np.searchsorted(marks[at_break], stop)]
        breaks = marks[at_break]
        starts = np.concatenate([[at], breaks[:-1] + 1]) if len(breaks) else np.empty(0, np.int64)
        long = np.flatnonzero(breaks - starts > self.limit)
        if len(long):
            starts, breaks, at_break = starts[: long[0]], breaks[: long[0]], at_break[: long[0]]
        if len(breaks):
            upto = np.cumsum(outside & (kinds == _COMMA))[at_break]
            self.add(starts, breaks, np.diff(upto, prepend=0))
            self.position = int(breaks[-1]) + 1
        return self.position < len(self.block)

    def first_irregular(self, quotes: "np.ndarray") -> int:
        """Position of the first quote that is not where RFC 4180 has quotes; the block's length if none is."""
        import numpy as np

        opens, closes = quotes[0::2], quotes[1::2]
        before = self.bytes[np.maximum(opens - 1, 0)]
        good = (before == _COMMA) | (before == self.line_break) | (opens == self.position)
        good[1:] |= opens[1:] == closes[: len(opens) - 1] + 1
        stop = int(opens[~good][0]) if not good.all() else len(self.block)
        last = len(self.block) - 1
        after = self.bytes[np.minimum(closes + 1, last)]
        fine = (after == _COMMA) | (after == self.line_break) | ((closes == last) & self.at_end)
        if self.line_break != _CR:
            after_next = self.bytes[np.minimum(closes + 2, last)]
            fine |= (after == _CR) & ((after_next == self.line_break) | ((closes + 1 == last) & self.at_end))
        paired = len(opens) - 1
        fine[:paired] |= closes[:paired] + 1 == opens[1:]
        return min(stop, int(closes[~fine][0]) if not fine.all() else stop)

    def slow(self) -> bool:
        """Take one record byte by byte. False where it may go on past the block."""
        end, problem = self.read_one(self.position)
        if end is None:
            return False
        self.odd[self.count] = problem
        self.add([self.position], [end], [0])
        self.position = end + 1
        return True

    def read_one(self, start: int) -> tuple[int | None, str | None]:
        """Where the record that begins at `start` ends, and what is wrong with it. (None, None): not known yet."""
        block, at = self.block, start
        line_end = block.find(self.line_break, start)
        if line_end < 0:
            line_end = len(block)
            if line_end - start <= self.limit and not self.at_end:
                return None, None
        if line_end - start > self.limit:
            raise NoLineBreak
        comma, newline = b",", bytes([self.line_break])
        while True:
            if block[at : at + 1] != b'"':
                end = self.find_first(newline, at)
                following = block.find(comma, at, end)
                if following < 0:
                    if end == len(block) and not self.at_end:
                        return None, None
                    return self.within_limit(start, end, line_end)
                at = following + 1
                continue
            close = self.closing_quote(at + 1, start)
            if close is None:
                return None, None
            if close < 0:
                return line_end, UNTERMINATED
            rest = block[close + 1 : close + 3]
            if rest[:1] == comma:
                at = close + 2
            elif rest[:1] in (newline, b"") or (self.line_break != _CR and rest in (b"\r\n", b"\r")):
                if len(rest) < 2 and rest[:1] != newline and not self.at_end:
                    return None, None
                end = close + 1 + (rest[:1] == b"\r" != newline)
                return self.within_limit(start, end, line_end)
            else:
                return line_end, TEXT_AFTER_QUOTE

    def within_limit(self, start: int, end: int, line_end: int) -> tuple[int, str | None]:
        return (end, None) if end - start <= self.limit else (line_end, TOO_LONG)

    def find_first(self, what: bytes, at: int) -> int:
        found = self.block.find(what, at)
        return found if found >= 0 else len(self.block)

    def closing_quote(self, at: int, start: int) -> int | None:
        """The quote that closes a field; -1 where none does within the limit; None where more must be read."""
        while True:
            at = self.block.find(b'"', at, start + self.limit)
            if at < 0:
                known = self.at_end or len(self.block) >= start + self.limit
                return -1 if known else None
            if at + 1 == len(self.block) and not self.at_end:
                return None
            if self.block[at + 1 : at + 2] != b'"':
                return at
            at += 2

    def add(self, starts: Any, ends: Any, commas: Any) -> None:
        import numpy as np

        self.starts.append(np.asarray(starts, np.int64))
        self.ends.append(np.asarray(ends, np.int64))
        self.counts.append(np.asarray(commas, np.int64))
        self.count += len(starts)
