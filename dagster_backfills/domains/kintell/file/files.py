"""Locates and opens import files in allowed locations, local or remote, and computes their digest. Not here: CSV."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import fsspec

from dagster_backfills.errors import UserError

READ_AHEAD = 4 * 1024 * 1024  # bytes; some fsspec file systems would buffer 50 MB by default


class FileError(UserError):
    """The file as a whole can't be read or imported."""


@dataclass(frozen=True)
class Place:
    """The location of a file or folder: local (`scheme` is `file`, `path` absolute) or in a store."""

    scheme: str
    path: str

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.scheme}://{self.path}"


def place_of(url: str) -> Place:
    """Parse a path or an fsspec URL and resolve symbolic links. Opens nothing. Raises `FileError` for a URL that may
    refer to another place than it appears to."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    scheme = match[1].lower() if match else "file"
    if scheme in ("file", "local"):
        return Place("file", _local_path(url, url[match.end() :] if match else url))
    path = url[match.end() if match else 0 :].strip("/")
    if "::" in url:
        raise FileError(
            f"{url} can't be opened: :: chains several file systems", hint="Use the URL of the file itself."
        )
    if {".", ".."} & set(re.split(r"[/\\\\?#]", unquote(path))):
        raise FileError(
            f"{url} can't be opened: a URL may not contain . or .. segments", hint="Use the full URL."
        )
    return Place(scheme, path)


def _local_path(url: str, path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        name = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        raise FileError(f"The name {name} is not UTF-8", hint="Rename the file.") from error
    given = Path(path).expanduser()
    if not given.is_absolute():
        raise FileError(
            f"{url} is relative: each process would resolve it differently",
            hint="Use an absolute path or a URL.",
        )
    try:
        return str(given.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{url} can't be opened: {error}") from error


def open_file(url: str, allowed: list[str]) -> "SourceFile":
    """The file at `url` (an absolute path or an fsspec URL), if it is inside one of the `allowed` locations.

    This is checked first, so that nothing outside them is opened, connected to or disclosed.
    """
    place = place_of(url)
    if not any(_is_below(place, place_of(location)) for location in allowed):
        raise FileError(
            f"{url} is not in an allowed location",
            hint=f"Allowed: {', '.join(allowed) or 'none'}. Set KINTELL_ALLOWED_LOCATIONS, separated by commas.",
        )
    fs, path = open_place(place)
    with readable(url, local=place.is_local):
        info = fs.info(path)
    if info["type"] == "directory":
        raise FileError(
            f"{url} is a folder",
            hint="Use a file in it. Export an Apple Numbers document as CSV (UTF-8).",
        )
    if info["type"] != "file":
        raise FileError(f"{url} is not a file")
    return SourceFile(fs, path, place, int(info["size"]))


def _is_below(place: Place, root: Place) -> bool:
    inside = not root.path or (place.path + "/").startswith(root.path.rstrip("/") + "/")
    return place.scheme == root.scheme and inside


def open_place(place: Place) -> tuple[Any, str]:
    """The fsspec file system of a place that has been checked, and the path in it."""
    if place.is_local:
        return fsspec.filesystem("file"), place.path
    with readable(place, local=False):
        return fsspec.core.url_to_fs(str(place))


@contextmanager
def readable(what: object, *, local: bool = True) -> Iterator[None]:
    """Turn errors of file systems into `FileError`. Remote stores also raise exception types of their own."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileError(f"{what} does not exist") from error
    except ImportError as error:
        raise FileError(f"{what} can't be opened: a package for it is missing", hint=str(error)) from error
    except ValueError as error:
        raise FileError(f"{what} can't be opened: {error}") from error
    except OSError as error:
        raise FileError(f"{what} can't be read: {error}") from error
    except Exception as error:
        if local or isinstance(error, UserError):
            raise
        raise FileError(f"{what} can't be read: {type(error).__name__}: {error}") from error


class SourceFile:
    """A file in an allowed location. `url` can be used to open it again; `size` is in bytes."""

    def __init__(self, fs: Any, path: str, place: Place, size: int) -> None:
        self.fs, self.path, self.is_local, self.size = fs, path, place.is_local, size
        self.url = str(place)
        self.name = path.rstrip("/").rsplit("/", 1)[-1]

    def stamp(self) -> str:
        """A stamp that changes when the file does, obtained without reading it: inode, size, mtime and ctime of a local
        file (no program can set ctime back), or the tag of an object store."""
        self.fs.invalidate_cache(self.path)
        if self.is_local:
            stat = Path(self.path).stat()
            return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
        return str(self.fs.ukey(self.path))

    def open(self, offset: int = 0) -> IO[bytes]:
        """Open the file at `offset`, by seeking."""
        with readable(self.url):
            handle: Any = self.fs.open(self.path, "rb", block_size=READ_AHEAD)
            handle.seek(offset)
        return handle

    def sha256(self) -> str:
        """The digest of the whole file."""
        digest = hashlib.sha256()
        with self.open() as handle:
            while piece := handle.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()
