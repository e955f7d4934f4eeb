"""Every verb on every backfill, with what there is and what there is not: an answer, or a refusal that helps."""

from datetime import UTC, datetime
from importlib import import_module

import psycopg
import pytest
from typer.testing import CliRunner

from dagster_backfills.cli.app import app
from dagster_backfills.cli.backfills import names
from dagster_backfills.cli.errors import FAILURES, OK, USAGE, explain
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.samples.scoring import ScoringSize, load_sample
from dagster_backfills_tests.conftest import new_database

pytestmark = pytest.mark.timeout(900)
NAMES = ["kintell", "progress_stats", "queue", "scoring", "training_completions"]
STRANGER = "no-such"
# What is typed after `VERB NAME`, and whether that can be meant of a backfill of partitions.
VERBS = {
    "status": [([], True), ([STRANGER], False)],
    "plan": [
        (["--which", "missing"], True),
        (["--partition", STRANGER], False),
        (["--partition", ""], False),
        (["--which", "named"], False),
    ],
    "run": [(["--partition", STRANGER, "--yes"], False)],
    "undo": [(["00000000"], False), (["--partition", STRANGER], False)],
    "failures": [([], True), (["--all", "--json"], True)],
    "explain": [([STRANGER], False), ([""], False)],
    "pause": [([], True)],
    "resume": [([], True)],
    "throttle": [(["--rest", "0"], True), ([], False), (["--window", "noon"], False)],
    "cancel": [(["--yes"], True)],
}


@pytest.fixture(scope="module")
def samples(server_url: str, dagsters_template: str):
    """The sample data of every domain; nothing has run."""
    with new_database(server_url, dagsters_template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            for domain in ("kintell", "progress", "queue", "training"):
                import_module(f"dagster_backfills.samples.{domain}").load_demo(conn)
            # All days are missing, and a plan of the demonstration's 1,500 members takes seconds.
            yesterday = newest_day(datetime.now(UTC).date())
            load_sample(conn, yesterday, ScoringSize(gyms=2, members=40))
        yield url


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_no_verb_ends_with_a_traceback_or_a_missing_feature(
    name: str, verb: str, samples: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", samples)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("SCORING_CATCH_UP_DAYS", "3")
    for words, meant in VERBS[verb]:
        code, text = answer(verb, name, *words)
        assert text.strip(), (words, code)
        assert "Traceback" not in text and " yet" not in text, text
        assert code in (OK, FAILURES, USAGE), text
        if code == USAGE:
            message, hint = text.split("\n")[-2:]
            assert message.endswith((".", "?", "'")) and hint, text
        else:
            assert meant, text
        if meant and name not in ("kintell", "queue"):
            assert code == OK, text


def test_all_backfills_are_covered(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sorted(names(tmp_path)) == NAMES


def answer(*words: str) -> tuple[int, str]:
    """The exit code and the output. An error is two lines: its message and its hint."""
    ended = CliRunner().invoke(app, list(words))
    error = ended.exception
    if error is None or isinstance(error, SystemExit):
        return ended.exit_code, ended.output
    code, message, hint = explain(error)
    return code, f"{ended.output}\n{message}\n{hint}"
