"""Download media, from allowed locations only and within limits, to an anonymous temporary file."""

import http.client
import ipaddress
import os
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from dagster_backfills.domains.queue.errors import JobError, PermanentJobError, http_error
from dagster_backfills.domains.queue.settings import MediaRules

_CHUNK = 1024 * 1024
_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
Progress = Callable[[int, int | None], None]


class ForbiddenLocation(PermanentJobError):
    """The URL is not an allowed media location."""

    kind = "forbidden_location"


class TooLarge(PermanentJobError):
    """The media is larger than the limit."""

    kind = "too_large"


@contextmanager
def open_media(url: str, rules: MediaRules, progress: Progress | None = None) -> Iterator[IO[bytes]]:
    """Open the media at `url` as a file. `progress` receives the bytes downloaded, and the total if known.

    Raises ForbiddenLocation, TooLarge or another PermanentJobError if a retry would not help, else JobError.
    """
    parts = _split(url)
    if parts.scheme == "file":
        with _local(parts, rules) as file:
            yield file
        return
    with tempfile.TemporaryFile(prefix="backfills-media-") as file:
        _download(url, rules, file, progress or (lambda done, total: None))
        file.seek(0)
        yield file


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises ValueError for an invalid port)
    except ValueError:
        raise ForbiddenLocation("The media URL is not valid.") from None
    if parts.username or parts.password:
        raise ForbiddenLocation("A media URL must not contain a user name or password.")
    return parts


@contextmanager
def _local(parts: SplitResult, rules: MediaRules) -> Iterator[IO[bytes]]:
    if parts.netloc not in ("", "localhost"):
        raise ForbiddenLocation("A file URL must not name a host.")
    try:
        path = Path(unquote(parts.path)).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        path = None
    if path is None or not any(path.is_relative_to(folder.resolve()) for folder in rules.folders):
        # The same message in both cases, so that it does not reveal which files exist elsewhere.
        raise ForbiddenLocation("The file does not exist in an allowed media folder (JOBS_MEDIA_FOLDERS).")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ForbiddenLocation("The media path is not a regular file.")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > rules.max_bytes:
            raise TooLarge(_too_large(rules))
        yield file


def _download(url: str, rules: MediaRules, file: IO[bytes], progress: Progress) -> None:
    deadline = time.monotonic() + rules.max_seconds
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            connection, target = _connect(url, rules, deadline)
            sock = connection.sock  # getresponse() clears the attribute
            try:
                headers = {
                    "User-Agent": "dagster-backfills",
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                }
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                if response.status == 200:
                    return _stream(response, rules, file, progress, deadline, sock)
                if response.status not in (301, 302, 303, 307, 308):
                    message = f"The media server returned status {response.status}."
                    raise http_error(response.status, message, kind="not_available")
                url = urljoin(url, response.getheader("Location") or "")
            finally:
                connection.close()
    except TimeoutError:
        _left(deadline)
        raise JobError("The media server stopped sending.", kind="network") from None
    except (OSError, http.client.HTTPException) as error:
        raise JobError(
            f"The media could not be downloaded: {error or type(error).__name__}.", kind="network"
        ) from None
    raise PermanentJobError(f"The media URL redirects more than {_MAX_REDIRECTS} times.", kind="network")


def _connect(url: str, rules: MediaRules, deadline: float) -> tuple[http.client.HTTPConnection, str]:
    """Connect to an address that has been checked. The host name is resolved once, against DNS rebinding."""
    parts = _split(url)
    if parts.scheme not in rules.schemes:
        allowed = ", ".join(sorted(rules.schemes))
        raise ForbiddenLocation(f"A media URL can't use {parts.scheme or 'no scheme'} (allowed: {allowed}).")
    host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
    if not _is_listed(host, port, parts.scheme, (*rules.hosts, *rules.private_hosts)):
        raise ForbiddenLocation(f"Media from {host}:{port} is not allowed (see JOBS_MEDIA_HOSTS).")
    private = _is_listed(host, port, parts.scheme, rules.private_hosts)
    connection = http.client.HTTPConnection(host, port, timeout=_left(deadline))
    connection.sock = _open(_addresses(host, port, private=private), port, deadline)
    if parts.scheme == "https":
        connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
        connection.default_port = 443
    return connection, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_listed(host: str, port: int, scheme: str, listed: tuple[str, ...]) -> bool:
    for entry in listed:
        name, colon, its_port = (
            entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
        )
        if (int(its_port) if colon else _PORTS[scheme]) != port:
            continue
        name = name.strip("[]")
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


def _addresses(host: str, port: int, *, private: bool) -> list[str]:
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise JobError(f"The host name {host} can't be resolved.", kind="network") from None
    addresses = [str(address[0]) for _, _, _, _, address in resolved]
    if not private and not all(map(is_public, addresses)):
        raise ForbiddenLocation(f"{host} resolves to a private address (see JOBS_MEDIA_PRIVATE_HOSTS).")
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is public. An IPv4 address embedded in an IPv6 address is checked as well."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _open(addresses: list[str], port: int, deadline: float) -> socket.socket:
    last = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), _left(deadline))
        except OSError as error:
            last = error
    raise last


def _stream(
    response: http.client.HTTPResponse,
    rules: MediaRules,
    file: IO[bytes],
    progress: Progress,
    deadline: float,
    sock: socket.socket,
) -> None:
    total = response.length
    if total is not None and total > rules.max_bytes:
        raise TooLarge(_too_large(rules))
    done = 0
    while True:
        sock.settimeout(_left(deadline))
        # read1 does not wait for a full chunk: with a slow server, read would block past the deadline.
        chunk = response.read1(_CHUNK)
        if not chunk:
            break
        done += len(chunk)
        if done > rules.max_bytes:
            raise TooLarge(_too_large(rules))
        file.write(chunk)
        progress(done, total)
    if total is not None and done < total:
        raise JobError(f"The download ended after {done} of {total} bytes.", kind="network")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise JobError("The download took longer than JOBS_MEDIA_MAX_SECONDS.", kind="too_slow")
    return min(30.0, left)


def _too_large(rules: MediaRules) -> str:
    return f"The media is larger than {rules.max_mb:g} MB (JOBS_MEDIA_MAX_MB)."
