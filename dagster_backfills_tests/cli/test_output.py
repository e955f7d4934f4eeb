"""Output for programs and output for people."""

import io
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import typer

from dagster_backfills.cli import output
from dagster_backfills.errors import UserError
from dagster_backfills_tests.terminal import bare


def test_stdout_is_only_valid_json(capsys):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    output.print_json({"ß": [moment, timedelta(minutes=1), Decimal("2"), Decimal("0.5"), None]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ß": ["2026-01-02T03:04:05+00:00", 60.0, 2, 0.5, None]}
    assert "ß" in out
    assert err == ""


def test_a_table_in_a_pipe_has_one_line_per_row_however_long(capsys):
    name = "a\tlong\nname " + "x" * 500
    output.print_table(["name", "count"], [(name, 12345), ("ok", None), ("[bold]", True)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name\tcount", f"a long name {'x' * 500}\t12345", "ok\t–", "[bold]\tyes"]


def test_a_table_on_a_terminal_shows_names_unchanged(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.print_table(["name", "count"], [("[bold]odd[/x]", 12345)])
    assert "[bold]odd[/x]" in (shown := capsys.readouterr().out)
    assert "12,345" in shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")],
)
def test_durations_are_short(seconds, shown):
    assert output.duration(seconds) == shown


def test_without_a_terminal_a_confirmation_needs_the_flag(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    output.confirm("Do it?", yes=True)
    with pytest.raises(UserError, match="--yes"):
        output.confirm("Do it?", yes=False)


@pytest.mark.parametrize(("answer", "agrees"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_the_user_confirms_or_declines(monkeypatch, capsys, answer, agrees):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    if agrees:
        output.confirm("Do it?", yes=False)
    else:
        with pytest.raises(typer.Exit) as raised:
            output.confirm("Do it?", yes=False)
        assert raised.value.exit_code == 130
        assert "Nothing was done." in capsys.readouterr().err


def test_a_very_long_key_is_truncated_before_other_columns_are_hidden() -> None:
    def shown(key: str) -> tuple[list[str], list[str]]:
        table, absent = output.fitted(["partition", "state"], [[key, "up to date"]], "", ["partition"], 80)
        return [str(column.header) for column in table.columns], absent

    assert shown("k" * 300) == (["partition", "state"], [])
    assert (
        output.fitted(["partition", "note"], [["k" * 40, "n" * 60]], "", ["partition"], 80)[0]
        .columns[0]
        .width
        == 40
    )


def test_a_time_on_a_terminal_says_its_zone_and_one_without_a_zone_is_shown_as_stored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        at = datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)))
        output.print_table(["created", "local"], [(at, datetime(2026, 1, 2, 3, 4))])
        output.print_fields([("created", at), ("local", datetime(2026, 1, 2, 3, 4))])
    finally:
        monkeypatch.undo()
        time.tzset()
    lines = [line.split() for line in bare(capsys.readouterr().out).splitlines()]
    assert lines[0] == ["created,", "UTC", "local"]
    assert lines[2] == ["2026-01-02", "01:04", "2026-01-02", "03:04"]
    assert lines[3:] == [
        ["created", "2026-01-02", "01:04", "UTC"],
        ["local", "2026-01-02", "03:04"],
    ]
