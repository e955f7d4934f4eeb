"""Secrets are never stored or shown."""

import pytest

from dagster_backfills.domains.kintell.events.outbox import NatsUnavailable
from dagster_backfills.redact import MASK, redact

ENVIRONMENT = {
    "MUX_TOKEN_SECRET": "mux/secret+value",
    "OPENAI_API_KEY": "a-plain-looking-key",
    "DATABASE_URL": "postgresql://app:p%40ss-w0rd@db.internal/prod",
    "KINTELL_NATS_URL": "nats://natsTokenOfOurs@nats.internal:4222",
    "NOTIFY_SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/ourHook",
    "NOTIFY_SMTP_USER": "mailer-7731",
    "LEGACY_URL": "postgresql://postgres:postgres@localhost/postgres",
    "MUX_TOKEN_SECRET_FILE": "/run/secrets/mux",
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
        ("can't reach nats://s3cr3tT0ken@nats:4222", "s3cr3tT0ken"),
        ("nats answered: natsTokenOfOurs is wrong", "natsTokenOfOurs"),
        ("clone of https://x0y1z2w3v4@github.com/a/b failed", "x0y1z2w3v4"),
        ("POST https://hooks.slack.com/services/T012/B345/abcDEF gave 404", "abcDEF"),
        ("POST https://discord.com/api/webhooks/123/abcDEF gave 404", "abcDEF"),
        ("POST https://acme.webhook.office.com/webhookb2/abcDEF@x/y", "abcDEF"),
        ("user mailer-7731 is refused", "mailer-7731"),
        ("GET https://blob/x?sv=2024&sig=AbC%2FdeF123%3D&se=1", "AbC%2FdeF123%3D"),
        ("https://maps/x?key=AIzaSyA-1234567890abcdefghijklmnopqrs", "AIzaSyA-1234567890"),
        ("github_pat_11ABCDEFG0abcdefgh was revoked", "11ABCDEFG0abcdefgh"),
        ("ghs_abcdefgh12345678", "abcdefgh12345678"),
        ("xapp-1-A012345678", "A012345678"),
        ("SG.abcdefghijklmnopqrst.uvwxyzabcdefghijklmn", "uvwxyzabcdefghijklmn"),
        ("ASIAABCDEFGHIJKLMNOP", "ASIAABCDEFGHIJKLMNOP"),
        ("seed SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY", "SUACSSL3UAHUDX"),
        ("AccountKey=abcd1234efgh5678==;EndpointSuffix=core", "abcd1234efgh5678"),
        ("host=db user=app password='two words' dbname=x", "two words"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
    ],
)
def test_a_secret_is_masked_wherever_it_is(text, secret):
    redacted = redact(text, ENVIRONMENT)
    assert secret not in redacted and MASK in redacted


def test_text_without_secrets_is_unchanged():
    text = (
        "somebody at /home/somebody: abc, the key word is missing; token expired; see https://host/path?page=2; "
        "postgresql://app@db/prod as postgres; write "
        "postgresql://user:password@host/database; MUX_TOKEN_SECRET_FILE names /run/secrets/mux; a@b.c at 12:30"
    )
    assert redact(text, ENVIRONMENT) == text


def test_messages_of_nats_are_stored_and_logged_without_the_token():
    error = NatsUnavailable("NATS at x does not answer: nats://s3cr3tT0ken@nats.internal:4222 refused")
    assert "s3cr3tT0ken" not in f"{error} {error.message}" and "***@nats.internal" in error.message


def test_the_shells_working_directory_is_not_a_secret():
    environment = {"PWD": "/srv/imports", "OLDPWD": "/srv", "DB_PWD": "hunter2hunter2"}
    assert redact("/srv/imports/a.csv", environment) == "/srv/imports/a.csv"
    assert redact("it is hunter2hunter2", environment) == "it is ***"
