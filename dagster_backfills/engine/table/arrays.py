"""Long lists of keys on their way to the server: psycopg looks at each element of a list, which these spare it."""

from collections.abc import Iterable

import psycopg
from psycopg.adapt import Buffer, Dumper

_OID = psycopg.adapters.types["text"].array_oid


class TextArray(list[str]):
    """Keys that are bound as `text[]`, put into an array literal once, however many statements take them."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(keys)
        self._literal: bytes | None = None

    @property
    def literal(self) -> bytes:
        """The list as Postgres reads it. It must not be changed any more."""
        if self._literal is None:
            joined = "\0".join(self)
            if "\\" in joined or '"' in joined:
                joined = joined.replace("\\", "\\\\").replace('"', '\\"')
            # No key of a database holds a NUL, so that it tells two keys apart.
            text = '"' + joined.replace("\0", '","') + '"' if self else ""
            self._literal = ("{" + text + "}").encode()
        return self._literal


class _TextArrayDumper(Dumper):
    oid = _OID

    def dump(self, obj: TextArray) -> Buffer:
        return obj.literal


psycopg.adapters.register_dumper(TextArray, _TextArrayDumper)
