"""The real server over real sockets: event streams, lost connections, endless bodies."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.domains.kintell.sample import csv_text, row
from dagster_backfills_tests.web.conftest import (
    SECRETS,
    environment_of_a_server,
    left_behind,
)
from dagster_backfills_tests.web.documented import is_as_documented
from dagster_backfills_tests.web.serving import Server, serving, wait_for
from dagster_backfills_tests.web.test_jobs import JOB

pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def database_url(server_url: str, template: str) -> Iterator[str]:
    with new_database(server_url, template) as url:
        yield url


@pytest.fixture(scope="module")
def place(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with environment_of_a_server(database_url, tmp_path_factory.mktemp("server")) as folder:
        yield folder


@pytest.fixture(autouse=True)
def nothing_is_left_of_other_tests(conn) -> None:
    """Removes the data of other tests, because they share the server and its database."""
    conn.execute("truncate jobs.background_jobs, kintell.backfill_jobs cascade")


@pytest.fixture(scope="module")
def server(place: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(place, getattr(request, "param", 2_000_000)) as made:
        yield made


def events(response: httpx.Response) -> Iterator[tuple[str, dict]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_followers_get_reload_after_a_database_outage(server, conn):
    with server.client("jobs") as client, client.stream("GET", "/api/jobs/events") as stream:
        received = events(stream)
        wait_for(lambda: conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'backfills serve: events' and query ilike '%%jobs_changed%%'"
        ).fetchone())  # fmt: skip
        assert next(received)[0] == "reload"
        job = client.post("/api/jobs", json=JOB).json()["id"]
        assert next(data["id"] for name, data in received if name == "job") == job


def test_followers_get_every_change_until_their_jobs_have_ended(server, conn):
    with server.client("jobs") as client:
        ids = [client.post("/api/jobs", json=JOB).json()["id"] for _ in range(2)]
        with (
            client.stream("GET", "/api/jobs/events", params={"id": ids}) as some,
            client.stream("GET", "/api/jobs/events") as all_of_them,
        ):
            received, everything = events(some), events(all_of_them)
            assert {next(received)[1]["id"] for _ in ids} == {*ids}
            assert {next(everything)[1]["id"] for _ in ids} == {*ids}
            client.post(f"/api/jobs/{ids[0]}/cancel")
            # A late notification may repeat the state in which they were enqueued.
            name, job = next(each for each in received if each[1].get("status") != "pending")
            assert (name, job["id"], job["status"]) == ("job", ids[0], "cancelled")
            assert (
                next(each for _, each in everything if each.get("status") != "pending")["status"]
                == "cancelled"
            )
            # Twenty at once: the database only notifies of their number.
            conn.execute(
                "select jobs.enqueue_background_jobs('sop_generation', array_agg(j.input_data)) from ("
                " select b.input_data from jobs.background_jobs as b, generate_series(1, 10)) as j"
            )
            assert next(name for name, _ in everything if name != "job") == "reload"
            client.post(f"/api/jobs/{ids[1]}/cancel")
            assert [name for name, _ in received][-2:] == ["job", "end"]


def test_a_lost_connection_keeps_the_bytes_received(server, place):
    before = left_behind(place)
    with server.client("imports") as client:
        metadata = {"fileName": "a.csv", "size": 100_000}
        at = client.post("/import/backfill/uploads", json=metadata).headers["Location"]
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
    wait_for(lambda: left_behind(place) == before)


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
    before, chunked = left_behind(place), "chunked" in length
    pieces = [FILE_PART, *[b"x" * 100_000] * 60]
    sent = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] if chunked else pieces
    assert server.send(form_head(server, length), *sent).startswith(b"HTTP/1.1 " + code)
    wait_for(lambda: left_behind(place) == before)


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


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc tells of open files on Linux only")
def test_a_forms_file_is_spooled_to_the_upload_folder(server, place):
    """Not in `/tmp`, which containers keep in memory."""

    def spooled() -> bool:
        with contextlib.suppress(FileNotFoundError):
            opened = [str(file.readlink()) for file in Path(f"/proc/{server.pid}/fd").iterdir()]
            return any(each.startswith(str(place / "home" / "web")) for each in opened)
        return False

    head = form_head(server, "Content-Length: 1900000").replace("\n", "\r\n")
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(head.encode() + FILE_PART + b"x" * 1_500_000)
        wait_for(spooled)


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
