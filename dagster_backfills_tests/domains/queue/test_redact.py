"""What must never be stored or shown."""

import pytest

from dagster_backfills.domains.queue.redact import MASK, redact

ENVIRONMENT = {
    "MUX_TOKEN_SECRET": "mux/secret+value",
    "OPENAI_API_KEY": "a-plain-looking-key",
    "DATABASE_URL": "postgresql://app:p%40ss-w0rd@db.internal/prod",
    "SHORT_TOKEN": "abc",
    "GIT_AUTHOR_NAME": "somebody",
    "HOME": "/home/somebody",
}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("refused for mux/secret+value", "mux/secret+value"),
        ("key a-plain-looking-key is wrong", "a-plain-looking-key"),
        ("password p%40ss-w0rd", "p%40ss-w0rd"),
        ("password p@ss-w0rd", "p@ss-w0rd"),
        ("https://bob:hunter22@host/x", "hunter22"),
        ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
        ("Authorization: Basic dGhlLWlkOnRoZS1zZWNyZXQ=", "dGhlLWlkOnRoZS1zZWNyZXQ="),
        ("Incorrect API key provided: sk-proj-abcdefgh1234", "sk-proj-abcdefgh1234"),
        ("GET https://s3/x?X-Amz-Signature=deadbeefcafe&y=1", "deadbeefcafe"),
        ("GET https://s3/x?access_token=deadbeefcafe", "deadbeefcafe"),
        ('{"password": "opensesame"}', "opensesame"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIiOiIxMjM0In0"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
    ],
)
def test_a_secret_is_taken_out_wherever_it_stands(text, secret):
    told = redact(text, ENVIRONMENT)
    assert secret not in told and MASK in told


def test_what_is_no_secret_stays():
    text = "somebody at /home/somebody: abc, the key word is missing; token expired; see https://host/path?page=2"
    assert redact(text, ENVIRONMENT) == text
