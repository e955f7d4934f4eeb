"""Allowed locations, checked before anything is opened, and unusable files in the inbox."""

import os
import socket

import dagster as dg
import fsspec
import pytest

from dagster_backfills.cli import doctor_machine
from dagster_backfills.cli.finding import findings_of
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.sensors import kintell_inbox
from dagster_backfills.domains.kintell.file.files import FileError, open_file, place_of
from dagster_backfills.domains.kintell.file.inbox import list_inbox
from dagster_backfills_tests.domains.kintell.sample import row, write_csv


@pytest.fixture
def folders(tmp_path):
    """A folder that is allowed, beside one that is not, with links from the first to the second."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        write_csv(folder / "a.csv", [row(1)])
    (inside / "link.csv").symlink_to(outside / "a.csv")
    (inside / "folder").symlink_to(outside)
    return inside, outside


@pytest.mark.parametrize(
    "url",
    [
        "{out}/a.csv",
        "{in}/../out/a.csv",
        "{in}/link.csv",
        "{in}/folder/a.csv",
        "{in}2/a.csv",
        "file://{out}/a.csv",
        "FILE://{out}/a.csv",
        "local://{in}/../out/a.csv",
        "file:{out}/a.csv",
        "zip://a.csv::{in}/a.zip",
        "zip://a::{out}/a.csv",
        "ZIP://a::file://{out}/a.csv",
        "simplecache::file://{out}/a.csv",
        "memory://box/a.csv::{out}/a.csv",
        "memory://box/../out/a.csv",
        "memory://box/%2e%2e/out/a.csv",
        "memory://box\\..\\out/a.csv",
        "memory://box2/a.csv",
        "memory://BOX/a.csv",
        "ftp://127.0.0.1:{port}/a.csv",
        "ftp://127.0.0.1:{port}/box/a.csv",
        "http://127.0.0.1:{port}/box/a.csv",
        "sftp://127.0.0.1:{port}/box/a.csv",
        "http://trusted@127.0.0.1:{port}/box/a.csv",
        "data:text/csv,a",
        "a.csv",
        "",
    ],
)
def test_files_outside_the_allowed_locations_are_refused_before_anything_is_opened(folders, url):
    inside, outside = folders
    allowed = [str(inside), "memory://box", "sftp://trusted/box", "http://trusted/box"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"in": inside, "out": outside, "port": server.getsockname()[1]}
        with pytest.raises(FileError, match=r"not in an allowed|chains|or .. segments|is relative"):
            open_file(url.format(**names), allowed)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_files_in_an_allowed_location_are_opened_however_the_path_is_written(folders):
    inside, _ = folders
    write_csv(inside / "a::b.csv", [row(1)])
    write_csv(inside / "%2e%2e.csv", [row(1)])
    for name in ("a.csv", "a::b.csv", "%2e%2e.csv"):
        for start in ("", "file://", "FILE://"):
            assert open_file(f"{start}{inside}/{name}", [f"file://{inside}/"]).url == str(inside / name)
    store = fsspec.filesystem("memory")
    store.pipe("/places/a.csv", b"a")
    source = open_file("MEMORY://places//a.csv".replace("//a", "/a"), ["Memory://places/"])
    assert source.url == "memory://places/a.csv"
    assert open_file(source.url, ["memory:///places"]).open().read() == b"a"
    store.rm("/places", recursive=True)


@pytest.fixture
def inbox(folders):
    """An inbox with files of odd names, of which one can't be imported, and links, which are none of its files."""
    inside, _ = folders
    (inside / "folder").unlink()
    write_csv(inside / "a::b.csv", [row(2)])
    with open(os.fsencode(inside) + b"/caf\xe9.csv", "w") as odd:  # noqa: PTH123
        odd.write("session_id")
    (inside / "gone.csv").symlink_to(inside / "nowhere")
    return inside


def test_a_file_that_cannot_be_imported_does_not_affect_the_others(inbox):
    found = list_inbox(str(inbox))
    assert list(found.files) == [str(inbox / "a.csv"), str(inbox / "a::b.csv")]
    (problem,) = found.problems
    assert "caf\ufffd.csv is not UTF-8" in problem


def test_the_sensor_imports_the_others_and_names_the_bad_file(inbox):
    settings, cursor, output = KintellSettings(inbox=str(inbox)), None, []
    for _ in range(3):
        context = dg.build_sensor_context(cursor=cursor, resources={"kintell": settings})
        result = kintell_inbox(context)
        if isinstance(result, dg.SkipReason):
            output.append(result.skip_message)
            cursor = context.cursor
        else:
            requested = [request.run_config["file"] for request in result.run_requests]
            cursor = result.cursor
    assert requested == [str(inbox / "a.csv"), str(inbox / "a::b.csv")]
    assert len(output) == 2
    assert all("is not UTF-8" in message for message in output)


def test_the_doctor_names_the_bad_file(inbox, monkeypatch):
    monkeypatch.setenv("KINTELL_INBOX", str(inbox))
    found = list(doctor_machine.inbox())
    assert {finding.level.value for finding in found} == {"warning"}
    assert any("is not UTF-8" in finding.found for finding in found)


@pytest.mark.parametrize("variable", ["KINTELL_INBOX", "KINTELL_ALLOWED_LOCATIONS", "KINTELL_ERROR_FILES"])
def test_a_relative_location_is_refused(variable, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    monkeypatch.setenv(variable, "files")
    settings = KintellSettings()
    with pytest.raises(FileError, match=f"{variable}: files is relative"):
        [settings.inbox_url, settings.allowed, settings.error_file("x")]
    (finding,) = findings_of(doctor_machine.inbox)
    assert (finding.level.value == "error") == (variable == "KINTELL_INBOX")
    monkeypatch.setenv(variable, str(tmp_path / "files"))
    assert [settings.inbox_url, settings.allowed, settings.error_file("x")]


def test_a_path_in_the_home_directory_is_not_relative(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_of("~/files").path == str(tmp_path / "files")
