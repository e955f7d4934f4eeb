"""The real server over real sockets: followers, lines that are cut, bodies without end, the document's own commands."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import pytest

from dagster_backfills_tests.domains.kintell.sample import csv_text, mixed_rows, row, write_csv
from dagster_backfills_tests.programs import SCRIPT
from dagster_backfills_tests.web.conftest import SECRETS, bearer, left_behind, work_off_runs
from dagster_backfills_tests.web.documented import is_as_documented
from dagster_backfills_tests.web.test_jobs import JOB

pytestmark = pytest.mark.programs

DOCUMENT = "docs/how-to/from-your-application.md"


@dataclass
class Server:
    port: int
    log: Path
    pid: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def most_memory(self) -> int:
        """The most bytes that it has held so far."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def client(self, scope: str) -> httpx.Client:
        return httpx.Client(base_url=self.address, headers=bearer(scope), timeout=60)

    def send(self, head: str, *pieces: bytes) -> bytes:
        """These bytes, whatever they are, and then silence; what comes back until the server hangs up."""
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


@pytest.fixture
def server(place: Path, conn, request: pytest.FixtureRequest) -> Iterator[Server]:
    """`backfills serve` with these tokens, from this folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tokens = [{"name": "tests", "token": SECRETS[s], "scopes": [s]} for s in ("imports", "backfills")]
    environment = os.environ | {
        "BACKFILLS_TOKENS": json.dumps(tokens), "JOBS_TOKEN": SECRETS["jobs"], "CRON_SECRET": SECRETS["cron"],
        "BACKFILLS_WEB_UPLOAD_BYTES": str(getattr(request, "param", 2_000_000)),
        "BACKFILLS_WEB_REQUESTS_PER_SECOND": "500",
    }  # fmt: skip
    log = place / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [SCRIPT, "serve", "--port", str(port)], env=environment, cwd=place, stdout=out, stderr=out
        )
    try:
        found = Server(port, log, process.pid)
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{found.address}/health", timeout=30)
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def wait_for(what, patience=30):
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def events(response: httpx.Response) -> Iterator[tuple[str, dict]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_followers_get_every_change_until_their_jobs_have_ended(server, conn):
    with server.client("jobs") as client:
        ids = [client.post("/api/jobs", json=JOB).json()["id"] for _ in range(2)]
        with (
            client.stream("GET", "/api/jobs/events", params={"id": ids}) as some,
            client.stream("GET", "/api/jobs/events") as all_of_them,
        ):
            told, everything = events(some), events(all_of_them)
            assert {next(told)[1]["id"] for _ in ids} == {*ids}
            assert {next(everything)[1]["id"] for _ in ids} == {*ids}
            client.post(f"/api/jobs/{ids[0]}/cancel")
            # What they were enqueued as may be told once more, where its notice was read late.
            name, job = next(each for each in told if each[1].get("status") != "pending")
            assert (name, job["id"], job["status"]) == ("job", ids[0], "cancelled")
            assert (
                next(each for _, each in everything if each.get("status") != "pending")["status"]
                == "cancelled"
            )
            # Twenty at once: the database tells of their number only.
            conn.execute(
                "select jobs.enqueue_background_jobs('sop_generation', array_agg(j.input_data)) from ("
                " select b.input_data from jobs.background_jobs as b, generate_series(1, 10)) as j"
            )
            assert next(name for name, _ in everything if name != "job") == "reload"
            client.post(f"/api/jobs/{ids[1]}/cancel")
            assert [name for name, _ in told][-2:] == ["job", "end"]


def test_followers_get_reload_after_a_database_outage(server, conn):
    with server.client("jobs") as client, client.stream("GET", "/api/jobs/events") as stream:
        told = events(stream)
        wait_for(lambda: conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'backfills serve: events' and query ilike '%%jobs_changed%%'"
        ).fetchone())  # fmt: skip
        assert next(told)[0] == "reload"
        job = client.post("/api/jobs", json=JOB).json()["id"]
        assert next(data["id"] for name, data in told if name == "job") == job


def test_a_lost_connection_keeps_the_bytes_received(server, place):
    with server.client("imports") as client:
        said = {"fileName": "a.csv", "size": 100_000}
        at = client.post("/import/backfill/uploads", json=said).headers["Location"]
        head = f"PUT {at} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {SECRETS['imports']}\r\n"
        piece = "Content-Range: bytes 0-99999/100000\r\nContent-Length: 100000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall((head + piece).encode() + b"x" * 40_000)
            wait_for(lambda: client.head(at).headers["Upload-Offset"] == "40000")
        rest = {"Content-Range": "bytes 40000-99999/100000"}
        wait_for(lambda: client.put(at, content=b"x" * 60_000, headers=rest).status_code == 200)
        client.delete(at)
    head = form_head(server, "Content-Length: 100000")
    server.send(head, FILE_PART, b"x" * 40_000)
    wait_for(lambda: left_behind(place) == [])


FILE_PART = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'


def form_head(server: Server, length: str) -> str:
    return (
        "POST /import/backfill/start HTTP/1.1\nHost: 127.0.0.1\n"
        f"Authorization: Bearer {SECRETS['imports']}\nContent-Type: multipart/form-data; boundary=B\n{length}\n\n"
    )


@pytest.mark.parametrize(
    ("length", "code"),
    [("Transfer-Encoding: chunked", b"413"), ("Content-Length: 99999999999", b"413"),
     ("Content-Length: 10", b"400"), ("Content-Length: -1", b"400")],
)  # fmt: skip
def test_an_endless_body_is_cut_off(server, place, length, code):
    chunked = "chunked" in length
    pieces = [FILE_PART, *[b"x" * 100_000] * 60]
    sent = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] if chunked else pieces
    assert server.send(form_head(server, length), *sent).startswith(b"HTTP/1.1 " + code)
    wait_for(lambda: left_behind(place) == [])


def test_many_clients_can_poll_during_an_upload(server, place):
    with server.client("imports") as client:
        started = client.post("/import/backfill/start", files={"file": ("a.csv", csv_text([row(1)]))})
        is_as_documented(started)
        job, seen = started.json()["jobId"], []
        threads = [
            Thread(target=lambda: seen.append(client.get(f"/import/backfill/{job}/status").status_code))
            for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [200] * 40
    assert not re.search("|".join(SECRETS.values()), server.log.read_text())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells of memory on Linux only")
@pytest.mark.parametrize("server", [60_000_000], indirect=True)
def test_a_large_file_is_not_held_in_memory(server, place):
    content = b"no column of ours\n" + b"x" * 50_000_000
    with server.client("imports") as client:
        client.post("/import/backfill/start", files={"file": ("small.csv", b"none\n")})
        before = server.most_memory()
        at = client.post("/import/backfill/uploads", json={"fileName": "a.csv", "size": len(content)})
        assert client.put(at.headers["Location"], content=content).json()["offset"] == len(content)
        refused = client.post("/import/backfill/start", files={"file": ("a.csv", content)})
        assert refused.status_code == 422
        assert server.most_memory() - before < 25_000_000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc tells of open files on Linux only")
def test_a_forms_file_is_spooled_to_the_upload_folder(server, place):
    """And not in `/tmp`, which a container has in memory."""

    def spooled() -> bool:
        with contextlib.suppress(FileNotFoundError):
            opened = [str(file.readlink()) for file in Path(f"/proc/{server.pid}/fd").iterdir()]
            return any(each.startswith(str(place / "home" / "web")) for each in opened)
        return False

    head = form_head(server, "Content-Length: 1900000").replace("\n", "\r\n")
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(head.encode() + FILE_PART + b"x" * 1_500_000)
        wait_for(spooled)


# ---- what the document says ---------------------------------------------------------------------------------


def blocks(project_root: Path, language: str) -> list[str]:
    text = (project_root / DOCUMENT).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "BACKFILLS": server.address} | {
        f"{scope.upper()}_TOKEN": secret for scope, secret in SECRETS.items()
    } | {"CRON_SECRET": SECRETS["cron"]}  # fmt: skip


@pytest.mark.e2e
def test_the_commands_of_the_document_do_what_it_says(server, place, project_root, conn):
    write_csv(place / "sessions.csv", mixed_rows(30))
    conn.execute("insert into training.organizations values ('org_1', 'One')")
    [script] = blocks(project_root, "sh")
    for number, command in enumerate(script.split("\n\n")):
        # Each is a shell of its own, which knows what those before it have set.
        text = f". ./state\n{command}\ndeclare -p JOB UPLOAD AT SIZE RUN >state 2>/dev/null || true"
        (place / "state").touch()
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=place,
            env=environment(server),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{number}: {command}\n{done.stdout}{done.stderr}"
        if "cron" not in command:
            work_off_runs()


@pytest.mark.parametrize("language", ["python", "js"])
@pytest.mark.e2e
def test_the_clients_of_the_document_put_a_job_in_and_follow_it(server, place, project_root, language, conn):
    program = {"python": sys.executable, "js": shutil.which("node")}[language]
    if program is None:
        pytest.skip("Node is not installed.")
    [text] = blocks(project_root, language)
    file = place / f"client.{'mjs' if language == 'js' else 'py'}"
    file.write_text(text)
    client = subprocess.Popen(
        [program, str(file)],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: conn.execute("select 1 from jobs.background_jobs").fetchone())
    with server.client("jobs") as http:
        http.post("/api/jobs/process")
    work_off_runs()
    out, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    lines = out.splitlines()
    assert lines[0].startswith("pending"), out
    assert lines[-1].startswith("completed 100"), out
