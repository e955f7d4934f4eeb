import random
import re
import string
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from email_validator import EmailNotValidError, validate_email

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.rows.rules import error_message, validate_values
from dagster_backfills.domains.kintell.rows.schemas import text_rows
from dagster_backfills.domains.kintell.rows.values import name_from_address
from dagster_backfills_tests.domains.kintell.sample import row


def validated(rows):
    frame = pl.DataFrame(
        [{name: r[name].strip() for name in KNOWN} for r in rows], schema=dict.fromkeys(KNOWN, pl.String)
    )
    frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    return validate_values(text_rows().validate(frame)).with_columns(error=error_message())


def library_says(value):
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return len(value.rpartition("@")[0].encode()) <= 64  # RFC 5321; the library leaves it to strict mode


def library_date(value):
    # The library takes any character between day and time. ISO 8601 has a T there; a space is common.
    if len(value) > 10 and not set("Tt ") & set(value):
        return None
    # It takes offsets with minutes over 59, and with seconds. ISO 8601 does not.
    if re.search(r"[Tt ].*[+-]\d\d(:?[6-9]\d|:?\d\d:?\d\d.*)$", value):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def addresses(rng, n):
    parts = ["a", "Bob", "x1", ".", "..", "-", "_", "+", "@", "@@", " ", "ü", '"', ",", "example", "example.com", "com",
             "test", "local", "localhost", "invalid", "arpa", "onion", "xn--a", "a--b", "1", "123", "[1.2.3.4]",
             "x" * 70]  # fmt: skip
    made = ["".join(rng.choices(parts, k=rng.randrange(1, 7))) for _ in range(n)]
    made += [f"{a}@{b}.{c}" for a in parts for b in parts for c in parts]
    letters = string.ascii_letters + string.digits
    made += [
        f"{''.join(rng.choices(letters + '._-+', k=8))}@{''.join(rng.choices(letters + '.-', k=8))}.org"
        for _ in range(n)
    ]
    return [each.strip() for each in made]


def test_the_address_fast_path_agrees_with_the_library():
    values = addresses(random.Random(7), 8000)
    found = (
        validated([row(1, participant_email=value) for value in values])["participant_email_error"]
        .is_null()
        .to_list()
    )
    expected = [library_says(value) for value in values]
    assert 100 < sum(expected) < len(values) - 100
    assert [v for v, a, b in zip(values, found, expected, strict=True) if a != b] == []


def test_the_date_fast_path_agrees_with_the_library():
    rng, values = random.Random(11), []
    formats = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%d", "%Y%m%dT%H%M",
               "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y-W%W-1", "%d/%m/%Y",
               "%Y-%m-%dT%H:%M:%S+02:00", "%Y/%m/%d"]  # fmt: skip
    for _ in range(6000):
        moment = datetime(1900, 1, 1) + timedelta(seconds=rng.randrange(8_000_000_000))
        text = moment.strftime(rng.choice(formats))
        if rng.random() < 0.5:  # one character becomes another
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice("0123456789-:TZ +.") + text[at + 1 :]
        values.append(text.strip())
    values += [
        "2023-02-29",
        "2024-02-29",
        "2024-02-29T24:00:00",
        "2024-01-01T23:59:60Z",
        "0001-01-01",
        "9999-12-31T23:59:59Z",
    ]
    found = validated([row(1, date=value) for value in values])["scheduled_at"].to_list()
    expected = [library_date(value) for value in values]
    assert sum(each is not None for each in expected) > 2000
    assert [(v, a, b) for v, a, b in zip(values, found, expected, strict=True) if a != b] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"session_id": "  "}, "Missing session_id"),
        ({"session_id": "x" * 1001}, "Invalid session_id: longer than 1000 bytes"),
        ({"session_type": "Coffee"}, "Unknown session type: Coffee"),
        ({"session_type": ""}, "Unknown session type: "),
        ({"participant_email": "Foo"}, "Invalid email format: Foo"),
        ({"participant_email": "x" * 65 + "@ex.org"}, "Invalid email format: " + "x" * 65 + "@ex.org"),
        ({"participant_email": "ü" * 33 + "@ex.org"}, "Invalid email format: " + "ü" * 33 + "@ex.org"),
        ({"volunteer_email": ""}, "Invalid email format: "),
        ({"date": "01/02/2024"}, "Invalid date format: 01/02/2024"),
        ({"date": "2024-01-15T10:00:00+25:00"}, "Invalid date format: 2024-01-15T10:00:00+25:00"),
        ({"date": "2024-05-01T10:00:00+10:60"}, "Invalid date format: 2024-05-01T10:00:00+10:60"),
        ({"date": "2024-05-01T10:00:00-0160"}, "Invalid date format: 2024-05-01T10:00:00-0160"),
        ({"date": "2024-05-01T10:00:00+23:59:59"}, "Invalid date format: 2024-05-01T10:00:00+23:59:59"),
        ({"date": "2024-05-01 10:00+235959"}, "Invalid date format: 2024-05-01 10:00+235959"),
        ({"date": "0001-01-01T00:00:00+14:00"}, "Invalid date format: 0001-01-01T00:00:00+14:00"),
        ({"duration_min": "0"}, "Invalid duration: 0"),
        ({"duration_min": "-5"}, "Invalid duration: -5"),
        ({"duration_min": "45.5"}, "Invalid duration: 45.5"),
        ({"duration_min": "٤٥"}, "Invalid duration: ٤٥"),
        ({"duration_min": "99999999999"}, "Invalid duration: 99999999999"),
        ({"rating": "0"}, "Invalid rating: 0"),
        ({"rating": "six"}, "Invalid rating: six"),
        ({"language_level": "B3"}, "Invalid language level: B3"),
        ({"rating": "y" * 300}, "Invalid rating: " + "y" * 200 + "…"),
        (
            {"session_id": "", "date": "x", "rating": "9"},
            "Missing session_id; Invalid date format: x; Invalid rating: 9",
        ),
    ],
)
def test_each_rule_has_its_message(changes, message):
    assert validated([row(1, **changes)])["error"].to_list() == [message]


def test_valid_values_are_accepted_in_every_allowed_form():
    found = validated(
        [
            row(1, session_type=" LANGUAGE connect ", language_level="c2", rating="", duration_min=" 007 "),
            row(
                2, date="2024-01-15T10:00:00+02:00", participant_email="A.B@Example.ORG", feedback_text=" x "
            ),
            row(3, date="2024-01-15"),
        ]
    )
    assert found["error"].to_list() == [None, None, None]
    assert found["session_type"][0] == "language"
    assert (found["language_level"][0], found["rating"][0], found["duration_minutes"][0]) == ("C2", None, 7)
    assert found["scheduled_at"][1] == datetime(2024, 1, 15, 10, tzinfo=timezone(timedelta(hours=2)))
    assert found["scheduled_at"][2] == datetime(2024, 1, 15, tzinfo=UTC)
    assert (found["participant_email"][1], found["feedback_text"][1]) == ("a.b@example.org", "x")


def test_local_parts_of_64_octets_and_offsets_of_hours_and_minutes_are_accepted():
    found = validated(
        [
            row(1, participant_email="x" * 64 + "@ex.org", date="2024-05-01T10:00:00+05:45"),
            row(2, participant_email="ü" * 32 + "@ex.org", date="2024-05-01T10:00:00-0930"),
            row(3, session_type="language\u00a0Connect", date="2024-05-01T10:00+14"),
        ]
    )
    assert found["error"].to_list() == [None, None, None]
    assert [f"{moment:%d %H:%M}" for moment in found["scheduled_at"]] == ["01 04:15", "01 19:30", "30 20:00"]


def test_user_names_are_derived_from_addresses():
    assert name_from_address("ana.maria-lopez+x@example.com") == "Ana Maria Lopez"
    assert name_from_address("+@example.com") == "+@example.com"
