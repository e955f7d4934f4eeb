"""Authentication: tokens and their scopes, the proxy's users, local users, and rejected requests."""

import logging

import pytest

from dagster_backfills.errors import UserError
from dagster_backfills.web.limits import Buckets
from dagster_backfills.web.settings import Limits, Settings
from dagster_backfills_tests.web.conftest import PROXY_SECRET, SECRETS, bearer

STATUS = "/import/backfill/00000000-0000-0000-0000-000000000000/status"
CANCEL = STATUS.replace("status", "cancel")
EVERY = [
    ("GET", "/import/backfill"), ("POST", "/import/backfill/start"), ("GET", STATUS), ("POST", CANCEL),
    ("POST", "/import/backfill/uploads"), ("GET", "/api/jobs"), ("POST", "/api/jobs"), ("GET", "/api/jobs/events"),
    ("POST", "/api/jobs/process"), ("POST", "/api/cron/commitment-scores"), ("GET", "/api/backfills"),
    ("POST", "/api/training/backfill"), ("POST", "/api/backfills/training_completions/run"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_requests_without_a_valid_token_and_scope_are_refused(doors, method, path):
    assert doors.request(method, path).status_code == 401
    forged = {"Authorization": f"Bearer {SECRETS['imports']}x"}
    assert doors.request(method, path, headers=forged).status_code == 401
    wrong = "cron" if "cron" not in path else "jobs"
    refused = doors.request(method, path, headers=bearer(wrong))
    assert (refused.status_code, refused.json()["error"].split(" ")[0]) == (403, wrong)


def test_a_token_that_may_read_changes_nothing(doors):
    looker = {"Authorization": "Bearer the-secret-of-looker"}
    assert doors.get("/import/backfill", headers=looker).status_code == 200
    assert doors.post(CANCEL, headers=looker).status_code == 403


def test_guessing_tokens_is_rate_limited_without_affecting_others(doors):
    codes = [doors.get(STATUS, headers={"Authorization": f"Bearer {n}"}).status_code for n in range(4)]
    assert codes == [401, 401, 429, 429]
    assert doors.get(STATUS, headers=bearer("imports")).status_code == 404


def test_the_proxys_users_are_trusted_only_with_its_secret(open_doors):
    doors = open_doors(client="10.0.0.9", proxy_secret=PROXY_SECRET)
    shown = {"X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": "vera"}
    assert doors.get("/import/backfill", headers=shown).status_code == 200
    assert doors.post(CANCEL, headers=shown).status_code == 403
    assert doors.post(CANCEL, headers={**shown, "X-Forwarded-Role": "operator"}).status_code == 404
    for lie in ({"X-Forwarded-User": "vera"}, {**shown, "X-Proxy-Secret": "another"}):
        assert doors.get("/import/backfill", headers=lie).status_code == 401
    assert doors.get("/import/backfill", headers={"X-Proxy-Secret": PROXY_SECRET}).status_code == 401


@pytest.mark.parametrize(
    ("client", "headers", "code"),
    [
        ("127.0.0.1", {}, 200),
        ("10.0.0.9", {}, 401),
        ("127.0.0.1", {"Host": "attacker.example:3001"}, 401),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}, 401),
    ],
)
def test_local_requests_are_accepted_and_forged_ones_are_not(open_doors, client, headers, code):
    assert open_doors(client=client).get("/import/backfill", headers=headers).status_code == code


def test_behind_a_proxy_no_request_counts_as_local(open_doors):
    assert open_doors(proxy_secret=PROXY_SECRET).get("/import/backfill").status_code == 401


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 404),
        ({"Origin": "http://127.0.0.1:3001", "Sec-Fetch-Site": "same-origin"}, 404),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_cross_site_requests_are_refused(open_doors, headers, code):
    assert open_doors().post(CANCEL, headers=headers).status_code == code


def test_tokens_are_refused_on_pages(doors):
    assert doors.get("/", headers=bearer("imports")).status_code == 401


def test_too_many_requests_get_429_with_retry_after(open_doors):
    doors = open_doors(client="10.0.0.9", limits=Limits(requests_per_second=0.5))
    answers = [doors.get("/import/backfill", headers=bearer("imports")) for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert doors.get("/api/jobs", headers=bearer("jobs")).status_code == 200


def test_a_bucket_refills():
    now = [0.0]
    bucket = Buckets(2, lambda: now[0])
    assert [bucket.take("a") for _ in range(9)] == [0] * 8 + [0.5]
    now[0] = 0.5
    assert (bucket.take("a"), bucket.take("b")) == (0, 0)


def test_a_response_and_its_log_line_have_the_same_id_and_no_secret(doors, caplog):
    with caplog.at_level(logging.INFO, "dagster_backfills.web"):
        found = doors.get(STATUS, headers=bearer("imports"))
    assert found.headers["X-Request-Id"] == found.json()["requestId"]
    assert f"{found.json()['requestId']} imports GET {STATUS} 404" in caplog.text
    assert not any(secret in caplog.text for secret in SECRETS.values())


def test_an_unknown_path_gets_404_and_a_wrong_method_405(doors):
    assert doors.get("/api/nothing", headers=bearer("jobs")).status_code == 404
    assert doors.put("/api/jobs", headers=bearer("jobs")).status_code == 405


def test_the_health_check_says_what_is_wrong_and_shows_no_secret(doors, monkeypatch, database_url):
    degraded = doors.get("/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert "The Dagster daemon sends no heartbeats" in degraded.json()["problems"][-1]
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:a-password@127.0.0.1:1/none")
    away = doors.get("/health")
    assert (away.status_code, away.json()["status"]) == (503, "unavailable")
    assert "does not answer" in away.json()["problems"][0]
    assert "a-password" not in away.text
    assert doors.get("/import/backfill", headers=bearer("imports")).status_code == 503


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CRON_SECRET": "short"}, "CRON_SECRET has fewer than 16 characters"),
        ({"BACKFILLS_PROXY_SECRET": "short"}, "BACKFILLS_PROXY_SECRET has fewer than 16"),
        ({"BACKFILLS_TOKENS": "a-token-that-is-no-json"}, "BACKFILLS_TOKENS can't be read: it is not a JSON list"),
        ({"BACKFILLS_TOKENS": '[{"name": "a", "token": "secret", "scopes": []}]'}, "at least 16"),
        ({"BACKFILLS_TOKENS": '[{"name": "a", "token": "0123456789abcdef", "scopes": ["all"]}]'}, "scope 'all'"),
        ({"BACKFILLS_WEB_UPLOAD_BYTES": "much"}, "BACKFILLS_WEB_UPLOAD_BYTES is 'much'"),
    ],
)  # fmt: skip
def test_an_invalid_setting_is_named_without_quoting_a_secret(given, message):
    with pytest.raises(UserError, match=message) as caught:
        Settings.from_environment(given)
    assert "secret" not in str(caught.value).replace("CRON_SECRET", "").replace("PROXY_SECRET", "")


def test_tokens_come_from_the_environment():
    given = {
        "CRON_SECRET": "c" * 16,
        "JOBS_TOKEN": "j" * 16,
        "BACKFILLS_TOKENS": '[{"name": "crm", "token": "0123456789abcdef", "scopes": ["imports", "jobs:read"]}]',
    }
    assert [(token.name, sorted(token.scopes)) for token in Settings.from_environment(given).tokens] == [
        ("cron", ["cron"]), ("jobs", ["jobs"]), ("crm", ["imports", "jobs:read"]),
    ]  # fmt: skip
