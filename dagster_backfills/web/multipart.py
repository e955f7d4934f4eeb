"""A form with a file, as it comes: its fields in memory, which are few and short; its one file on disk."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from dagster_backfills.web.limits import too_large
from dagster_backfills.web.refusals import Refused
from dagster_backfills.web.uploads import Uploads, checked_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_PARTS = 20
_FIELD_BYTES = 8 * 1024
_HEADER_BYTES = 8 * 1024


@dataclass
class Form:
    """The fields by name; of the file, its name and where it lies. Whoever got it removes it."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str = ""
    path: Path | None = None


async def receive_form(request: Request, uploads: Uploads) -> Form:
    """The form of a request. Raises `Refused`, and leaves nothing behind, for one that is broken, cut or too large."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(415, "A form with a file is wanted.", "curl -F file=@sessions.csv …")
    reader = _Reader(uploads)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in request.stream():
            if chunk:
                await asyncio.to_thread(parser.write, chunk)
        parser.finalize()
        if not reader.ended:
            raise Refused(400, "The form ends in its middle.", "Send it again.")
    except FormParserError as error:
        reader.discard()
        raise Refused(400, f"The form can't be read: {error}.", "Send it again.") from None
    except BaseException:
        reader.discard()
        raise
    reader.close()
    return reader.form


class _Reader:
    """What the parser tells, written down."""

    def __init__(self, uploads: Uploads) -> None:
        self.uploads, self.form, self.ended = uploads, Form(), False
        self.file: BinaryIO | None = None
        self._parts = self._written = self._header_bytes = 0
        self._name = ""
        self._header, self._value, self._text = bytearray(), bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._in_file = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._grow(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._grow(self._value, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise Refused(400, f"A form has {_PARTS} parts at most here.", "", {"Connection": "close"})
        self._headers, self._header_bytes = {}, 0
        self._text.clear()

    def _grow(self, part: bytearray, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _HEADER_BYTES:
            raise Refused(400, "A part of the form has too long a header.", "", {"Connection": "close"})
        part += data

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = b"filename" in options
        if not self._in_file:
            return
        if self.form.path is not None:
            raise Refused(400, "The form has more than one file.", "Send one.", {"Connection": "close"})
        self.form.file_name = checked_name(_sent_name(self._headers[b"content-disposition"], options))
        self.form.path = self.uploads.new_file()
        self.file = self.form.path.open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self.file is not None:
            self._written += end - start
            if self._written > self.uploads.limits.upload_bytes:
                raise too_large(self.uploads.limits.upload_bytes)
            self.file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _FIELD_BYTES:
            raise Refused(400, f"Field {self._name[:50]!r} is too long.", "", {"Connection": "close"})

    def _part_end(self) -> None:
        if not self._in_file:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace").strip()

    def _end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def discard(self) -> None:
        self.close()
        if self.form.path is not None:
            self.form.path.unlink(missing_ok=True)
            self.form.path = None


def _sent_name(header: bytes, options: dict[bytes, bytes]) -> str:
    """The name as it was sent: the parser makes a bare name of a Windows path, and a path is to be refused."""
    name = options[b"filename"].decode("utf-8", "replace")
    return f"/{name}" if b"\\" in header.replace(b'\\"', b"") else name
