"""Allowed media locations and limits, over real local sockets."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dagster_backfills.domains.queue import media
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError
from dagster_backfills.domains.queue.media import ForbiddenLocation, TooLarge, open_media
from dagster_backfills.domains.queue.settings import MediaRules
from dagster_backfills.errors import UserError

BODY = b"sound " * 50_000


class _Site(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/a.wav?x=1":
            self._answer(200, BODY)
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.server.targets[self.path[4:]])
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 65536)
        elif self.path == "/trickle":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            self._answer(int(self.path[1:]), b"no")

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.place = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _rules(site, **more):
    allowed = {"schemes": frozenset({"http"}), "private_hosts": (site.place,), "max_mb": 1_000_000 / 2**20}
    return MediaRules(**{**allowed, **more})


def _get(url, rules):
    with open_media(url, rules) as file:
        return file.read()


def test_media_is_streamed_from_an_allowed_host_with_progress(site):
    seen = []
    with open_media(
        f"{site.url}/a.wav?x=1", _rules(site), lambda done, total: seen.append((done, total))
    ) as file:
        assert file.read() == BODY
    assert seen[-1] == (len(BODY), len(BODY))


def test_the_temporary_file_has_no_name_so_that_nothing_can_be_left_behind(site, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_media(f"{site.url}/a.wav?x=1", _rules(site)) as file:
        assert list(tmp_path.iterdir()) == [] and file.read(5) == b"sound"
    with pytest.raises(RuntimeError), open_media(f"{site.url}/a.wav?x=1", _rules(site)):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.wav",
        "http://127.0.0.1:1/a.wav",
        "ftp://127.0.0.1/a.wav",
        "gopher://127.0.0.1/a",
        "data:audio/wav;base64,AAAA",
        "/etc/passwd",
        "a.wav",
        "http://user:secret@127.0.0.1/a.wav",
        "http://[::1/a.wav",
        "http://127.0.0.1:99999/a.wav",
    ],
)
def test_other_locations_fail_permanently(site, url):
    with pytest.raises(ForbiddenLocation) as refused:
        _get(url, _rules(site))
    assert not refused.value.retryable and "secret" not in str(refused.value)


def test_a_host_with_a_private_address_is_rejected_unless_it_is_configured(site):
    url = f"http://localhost:{site.server_port}/a.wav?x=1"
    with pytest.raises(ForbiddenLocation, match="private address"):
        _get(url, _rules(site, hosts=(f"localhost:{site.server_port}",)))
    assert _get(url, _rules(site, private_hosts=(f"localhost:{site.server_port}",))) == BODY


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "::",
    ],
)
def test_private_addresses_are_recognized_in_every_notation(address):
    assert not media.is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"]
)
def test_public_addresses_are_public(address):
    assert media.is_public(address)


def test_the_address_that_was_checked_is_the_one_that_is_used(site, monkeypatch):
    """The host name is resolved only once, so DNS rebinding to a private address has no effect."""
    asked = []

    def resolve(host, port, *more, **kwargs):
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(media.socket, "getaddrinfo", resolve)
    rules = _rules(site, private_hosts=(f"media.example:{site.server_port}",))
    assert _get(f"http://media.example:{site.server_port}/a.wav?x=1", rules) == BODY
    assert asked == ["media.example", "127.0.0.1"]  # then only the address itself


def test_a_redirect_is_followed_to_allowed_locations_only(site):
    site.targets = {
        "ok": "/a.wav?x=1",
        "private": f"http://localhost:{site.server_port}/a.wav?x=1",
        "file": "file:///etc/passwd",
        "elsewhere": "http://other.example/a.wav",
        "round": "/to/round",
    }
    rules = _rules(site, hosts=(f"localhost:{site.server_port}",))
    assert _get(f"{site.url}/to/ok", rules) == BODY
    for target in ("private", "file", "elsewhere"):
        with pytest.raises(ForbiddenLocation):
            _get(f"{site.url}/to/{target}", rules)
    with pytest.raises(PermanentJobError, match="redirects more than 5 times"):
        _get(f"{site.url}/to/round", rules)


def test_a_file_that_is_too_large_is_rejected_by_its_content_length_and_by_its_size(site):
    with pytest.raises(TooLarge):
        _get(f"{site.url}/a.wav?x=1", _rules(site, max_mb=1000 / 2**20))
    with pytest.raises(TooLarge, match="JOBS_MEDIA_MAX_MB"):
        _get(f"{site.url}/endless", _rules(site))


def test_a_download_that_takes_too_long_is_aborted(site):
    with pytest.raises(JobError, match="JOBS_MEDIA_MAX_SECONDS"):
        _get(f"{site.url}/trickle", _rules(site, max_seconds=0.5))


@pytest.mark.parametrize(
    ("path", "retryable"), [("503", True), ("429", True), ("404", False), ("403", False)]
)
def test_http_errors_are_retried_only_if_a_retry_may_help(site, path, retryable):
    with pytest.raises(JobError, match=path) as refused:
        _get(f"{site.url}/{path}", _rules(site))
    assert refused.value.retryable is retryable


def test_an_interrupted_download_is_an_error_and_not_a_short_file(site):
    with pytest.raises(JobError, match="9 of 1000 bytes"):
        _get(f"{site.url}/short", _rules(site))


def test_an_unreachable_server_is_a_retryable_failure(site):
    site.shutdown()
    site.server_close()
    with pytest.raises(JobError) as failed:
        _get(f"{site.url}/a.wav?x=1", _rules(site))
    assert failed.value.retryable and failed.value.kind == "network"


def test_files_come_from_allowed_folders_only(tmp_path):
    allowed, outside = tmp_path / "in box", tmp_path / "outside.wav"
    allowed.mkdir()
    outside.write_bytes(b"secret")
    (allowed / "a b.wav").write_bytes(BODY)
    (allowed / "link.wav").symlink_to(outside)
    rules = MediaRules(folders=(allowed,))
    assert _get((allowed / "a b.wav").as_uri(), rules) == BODY
    refused = [outside.as_uri(), (allowed / "link.wav").as_uri(), f"file://{allowed}/../outside.wav"]
    refused += [allowed.as_uri(), (allowed / "missing.wav").as_uri(), f"file://other.example{allowed}/a.wav"]
    for url in refused:
        with pytest.raises(ForbiddenLocation):
            _get(url, rules)
    with pytest.raises(ForbiddenLocation):
        _get((allowed / "a b.wav").as_uri(), MediaRules())
    with pytest.raises(TooLarge):
        _get((allowed / "a b.wav").as_uri(), MediaRules(folders=(allowed,), max_mb=10 / 2**20))


def test_the_rules_come_from_the_environment_and_allow_nothing_by_default():
    assert MediaRules.from_environment({}) == MediaRules()
    rules = MediaRules.from_environment(
        {
            "JOBS_MEDIA_SCHEMES": "https, http",
            "JOBS_MEDIA_HOSTS": "cdn.example.com,*.media.example",
            "JOBS_MEDIA_FOLDERS": "/srv/media",
            "JOBS_MEDIA_MAX_MB": "5",
        }
    )
    assert rules.schemes == {"http", "https"} and rules.hosts == ("cdn.example.com", "*.media.example")
    assert rules.folders == (Path("/srv/media"),) and rules.max_bytes == 5 * 1024 * 1024
    for name, text in {"JOBS_MEDIA_MAX_MB": "much", "JOBS_MEDIA_SCHEMES": "https,ftp"}.items():
        with pytest.raises(UserError, match=f"{name} is '{text}'"):
            MediaRules.from_environment({name: text})
