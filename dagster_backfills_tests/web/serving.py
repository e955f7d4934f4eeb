"""`backfills serve` in a separate process, over real sockets."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dagster_backfills_tests.programs import SCRIPT, start
from dagster_backfills_tests.web.conftest import SECRETS, bearer


@dataclass
class Server:
    port: int
    log: Path
    pid: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def most_memory(self) -> int:
        """The process's peak memory in bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def client(self, scope: str) -> httpx.Client:
        return httpx.Client(base_url=self.address, headers=bearer(scope), timeout=60)

    def send(self, head: str, *pieces: bytes) -> bytes:
        """Sends these bytes and nothing more. Returns what the server sends until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(head.replace("\n", "\r\n").encode())
                for piece in pieces:
                    line.sendall(piece)
                line.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while data := line.recv(65536):
                    found += data
            return found


@contextlib.contextmanager
def serving(place: Path, upload_bytes: int = 2_000_000) -> Iterator[Server]:
    """Runs a server with these tokens, in this folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tokens = [{"name": "tests", "token": SECRETS[s], "scopes": [s]} for s in ("imports", "backfills")]
    environment = os.environ | {
        "BACKFILLS_TOKENS": json.dumps(tokens), "JOBS_TOKEN": SECRETS["jobs"], "CRON_SECRET": SECRETS["cron"],
        "BACKFILLS_WEB_UPLOAD_BYTES": str(upload_bytes),
        "BACKFILLS_WEB_REQUESTS_PER_SECOND": "500",
    }  # fmt: skip
    log = place / "serve.log"
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
    program = start([SCRIPT, "serve", "--port", str(port)], streams, env=environment, cwd=place)
    try:
        found = Server(port, log, program.pid)
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{found.address}/health", timeout=30)
                break
            assert program.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(30)


def wait_for(what: Callable[[], Any], patience: float = 30) -> Any:
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found
