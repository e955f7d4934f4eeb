"""A file in an object store, read through `s3://` from a server that speaks S3.

Its packages are many, so they are not among those of the tests: `uv pip install s3fs 'moto[s3]' flask flask-cors`.
"""

import pytest

from dagster_backfills.domains.kintell.after.error_file import write_error_file
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import set_status
from dagster_backfills_tests.domains.kintell.sample import add_users, csv_text, mixed_rows, state, write_csv

s3fs = pytest.importorskip("s3fs", reason="the optional package s3fs is not installed")
moto = pytest.importorskip(
    "moto.server", reason="moto, an S3 server, is not installed with flask and flask-cors"
)

ALLOWED = ["s3://sessions/inbox"]
FILE = "s3://sessions/inbox/a.csv"
ROWS = 400


@pytest.fixture
def store(monkeypatch):
    """A bucket `sessions` with a file in `inbox`."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("sessions")
    fs.pipe("sessions/inbox/a.csv", csv_text(mixed_rows(ROWS)).encode())
    yield fs
    fs.rm("sessions", recursive=True)  # the server forgets nothing when it stops
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_import_from_s3_gives_the_same_result_as_one_from_a_folder(
    store, conn, database_url, make_database, tmp_path
):
    import psycopg

    add_users(conn)
    job = register(conn, FILE, ALLOWED).job

    def pause(progress):
        if progress.processed == ROWS / 2:
            set_status(conn, job, "pause")

    assert (
        run_import(database_url, job, Options(batch_rows=50), ALLOWED, on_progress=pause).status == "paused"
    )
    done = run_import(database_url, job, Options(batch_rows=50), ALLOWED)
    assert (done.status, done.attempt, done.processed_rows) == ("completed", 2, ROWS)

    with psycopg.connect(make_database(), autocommit=True) as other:
        add_users(other)
        local = write_csv(tmp_path / "a.csv", mixed_rows(ROWS))
        run_import(
            other.info.dsn, register(other, str(local), [str(tmp_path)]).job, Options(), [str(tmp_path)]
        )
        assert state(conn) == state(other)

    write_error_file(conn, job, "s3://sessions/errors/a.csv")
    assert len(store.cat("sessions/errors/a.csv").splitlines()) >= done.failed_rows


def test_an_object_that_was_replaced_is_refused(store, conn, database_url):
    add_users(conn)
    job = register(conn, FILE, ALLOWED).job
    store.pipe("sessions/inbox/a.csv", csv_text(mixed_rows(ROWS)).replace("s-000001", "s-100001").encode())
    with pytest.raises(FileError, match="has changed since job"):
        run_import(database_url, job, Options(), ALLOWED)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://sessions/a.csv", "not in an allowed location"),
        ("s3://sessions/inbox/../a.csv", "not in an allowed location"),
        ("s3://sessions/inbox/b.csv", "does not exist"),
        ("s3://sessions/inbox", "not a file"),
    ],
)
def test_objects_outside_the_allowed_locations_are_refused(store, conn, url, message):
    with pytest.raises(FileError, match=message):
        register(conn, url, ALLOWED)


def test_a_store_that_denies_access_is_a_clear_error(store, conn, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(FileError, match=r"a\.csv can't be read: .*credentials"):
        register(conn, FILE, ALLOWED)
