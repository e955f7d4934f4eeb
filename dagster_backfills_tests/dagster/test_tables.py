"""Rows as tables of an event's metadata."""

from datetime import date

from dagster_backfills.dagster.tables import markdown, table


def test_a_missing_column_of_a_row_is_null() -> None:
    found = table([{"partition": "p1"}, {"partition": "p2", "name": "Second"}])
    assert [dict(record.data) for record in found.records] == [
        {"partition": "p1", "name": None},
        {"partition": "p2", "name": "Second"},
    ]


def test_values_without_a_dagster_type_become_text() -> None:
    (record,) = table([{"day": date(2026, 1, 31), "rows": 3, "rate": 0.5, "done": True, "by": None}]).records
    assert record.data == {"day": "2026-01-31", "rows": 3, "rate": 0.5, "done": True, "by": None}


def test_cell_text_can_not_end_the_cell_or_the_row() -> None:
    assert markdown(["unit", "rows"], [["a|b\nc", 1234]]).splitlines() == [
        "| unit | rows |",
        "| --- | --- |",
        "| a&#124;b c | 1,234 |",
    ]
