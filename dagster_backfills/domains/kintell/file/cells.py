"""Converts a workbook's cell to text. Pure; no I/O.

Dates become ISO 8601. Numbers become plain digits, without the rounding or grouping of their format. Only a format that
turns a number into an ID (`00000`, `"KS-"0000`, `000-0000`) is applied. The text of an unusable cell begins with `#`.
"""

import datetime as dt
import re
from functools import lru_cache
from typing import Any

EXACT = (
    10**15
)  # spreadsheet programs keep 15 digits and replace the others by 0; other programs write all digits
ROUNDED = "#ROUNDED!"
NOT_CALCULATED = "#NOT CALCULATED!"
_ESCAPED = re.compile(r"_x00([01][0-9A-Fa-f]|5[Ff])_")
_CLOCK = re.compile(r"[hHsS]")
_QUOTED = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[[^\]]*\]')


def cell_text(value: Any, number_format: str) -> str:
    """The text of a cell's value as openpyxl returns it: text, number, date, boolean or None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value) if "_x00" in value else value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, dt.datetime):
        only_day = value.time() == dt.time() and not _CLOCK.search(_QUOTED.sub("", number_format))
        return value.date().isoformat() if only_day else value.isoformat()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _number(value: float, number_format: str) -> str:
    whole = int(value) if value == value and abs(value) != float("inf") and value == int(value) else None
    if whole is None:
        return format(value, ".15g") if abs(value) < EXACT else str(value)
    if abs(whole) >= EXACT and (isinstance(value, float) or not str(whole)[15:].strip("0")):
        return f"{ROUNDED} {whole}"
    mask = _mask(number_format)
    return _masked(whole, mask) if mask and whole >= 0 else str(whole)


@lru_cache(maxsize=1000)
def _mask(number_format: str) -> tuple[str, ...]:
    """The digit placeholders (`0`, `#`) and literals (`=text`) of a format that makes an ID of a number, or nothing."""
    section, parts, at = number_format.split(";")[0], list[str](), 0
    while at < len(section):
        if literal := _QUOTED.match(section, at):
            parts += ["=" + text for text in literal.groups() if text]
            at = literal.end()
            continue
        char = section[at]
        if char not in "0#- ()/:":
            return ()
        parts.append(char if char in "0#" else "=" + char)
        at += 1
    digits = [place for place, part in enumerate(parts) if part in ("0", "#")]
    inside = digits and any(part.startswith("=") for part in parts[: digits[-1]])
    return tuple(parts) if digits and (inside or parts.count("0") >= 2) else ()


def _masked(whole: int, mask: tuple[str, ...]) -> str:
    """Fill the placeholders with the number's digits from the right. The first one takes all remaining digits."""
    digits, out = list(str(whole)), list[str]()
    first = next(place for place, part in enumerate(mask) if part in ("0", "#"))
    for place in range(len(mask) - 1, -1, -1):
        if mask[place].startswith("="):
            out.append(mask[place][1:])
        elif place == first:
            out.append("".join(digits) if digits else "0" * (mask[place] == "0"))
        else:
            out.append(digits.pop() if digits else "0" * (mask[place] == "0"))
    return "".join(reversed(out))
