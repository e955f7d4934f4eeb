"""The file of an import: where it may lie, how it is opened, what it contains (digest). Not here: its records."""

from functools import partial
from pathlib import Path
from typing import IO, Any

from dagster_backfills.lib.errors import UserError

READ_AHEAD = 4 * 1024 * 1024  # bytes of an object in a store; some file systems would keep 50 MB


class FileError(UserError):
    """The file as a whole can't be read or imported."""


def open_file(url: str, allowed: list[str]) -> "SourceFile":
    """The file at `url` (a local path or an fsspec URL), if it lies below one of the `allowed` locations."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise FileError(f"{url} can't be opened: a package for it is missing", hint=str(error)) from error
    except ValueError as error:
        raise FileError(f"{url} can't be opened: {error}") from error
    if is_local(fs):
        path = str(Path(path).resolve())
    if not any(_below(fs, path, location) for location in allowed):
        raise FileError(
            f"{url} is not in an allowed location",
            hint=f"Allowed: {', '.join(allowed) or 'none'}. KINTELL_ALLOWED_LOCATIONS says which, with commas.",
        )
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise FileError(f"{url} does not exist") from error
    except OSError as error:
        raise FileError(f"{url} can't be read: {error}") from error
    except Exception as error:
        if is_local(fs):
            raise
        # Each kind of store has errors of its own, for credentials and connections say.
        raise FileError(f"{url} can't be read: {type(error).__name__}: {error}") from error
    if info["type"] != "file":
        raise FileError(f"{url} is not a file")
    return SourceFile(fs, path, fs.unstrip_protocol(path) if not is_local(fs) else path, int(info["size"]))


def is_local(fs: Any) -> bool:
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return protocol in ("file", "local")


def _below(fs: Any, path: str, location: str) -> bool:
    import fsspec

    if fsspec.utils.get_protocol(location) not in (
        (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    ):
        return False  # and its package need not be there
    other, root = fsspec.core.url_to_fs(location)
    if type(other) is not type(fs):
        return False
    if is_local(fs):
        return Path(path).is_relative_to(Path(root).resolve())
    root = root.rstrip("/")
    return ".." not in path.split("/") and (root == "" or path == root or path.startswith(root + "/"))


class SourceFile:
    """A file that lies where it may. `url` opens it again, `size` is in bytes."""

    def __init__(self, fs: Any, path: str, url: str, size: int) -> None:
        self.fs, self.path, self.url, self.size = fs, path, url, size

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    def stamp(self) -> str:
        """Changes when the file does, and costs no reading: inode and times, or the object store's tag.

        Local: the kernel's change time too, which no one can set back.
        """
        self.fs.invalidate_cache(self.path)
        if is_local(self.fs):
            stat = Path(self.path).stat()
            return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
        return str(self.fs.ukey(self.path))

    def open(self, offset: int = 0) -> IO[bytes]:
        """The file's bytes from `offset` on; one seek, no reading of what comes before."""
        handle: Any = None
        try:
            opened = (
                Path(self.path).open
                if is_local(self.fs)
                else partial(self.fs.open, self.path, block_size=READ_AHEAD)
            )
            handle = opened(mode="rb")
            handle.seek(offset)
        except OSError as error:
            raise FileError(f"{self.url} can't be read: {error}") from error
        return handle

    def sha256(self) -> str:
        """The digest of the whole content."""
        import hashlib

        digest = hashlib.sha256()
        with self.open() as handle:
            while piece := handle.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()
