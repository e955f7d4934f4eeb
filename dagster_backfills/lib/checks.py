"""Asset checks from statements that give the rows which break a rule: none is a pass, the first few are named."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

_SHOWN = 20

AFTER_EVERY_RUN = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())
"""Check the asset after whatever run has reported it: its own or a job's.

`eager` by itself would wait until every partition is there, so that one that can't be written would end the checks.
"""


def check_breaches(
    conn: psycopg.Connection[Any],
    statement: str,
    binds: Mapping[str, Any],
    *,
    asset: str,
    name: str,
    rule: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Run the statement and pass if it gives no row; else fail, with the count and the first rows as a table."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement, binds).fetchall()
    conn.commit()
    metadata: dict[str, Any] = {"breaches": len(rows)}
    if rows:
        metadata["first_breaches"] = dg.MetadataValue.table(
            [dg.TableRecord({key: _cell(value) for key, value in row.items()}) for row in rows[:_SHOWN]]
        )
    return dg.AssetCheckResult(
        asset_key=asset.split("/"),
        check_name=name,
        passed=not rows,
        severity=severity,
        description=rule if not rows else f"{len(rows):,} break it: {rule} {_named(rows)}",
        metadata=metadata,
    )


def _named(rows: Sequence[Mapping[str, Any]]) -> str:
    first = ", ".join(str(next(iter(row.values()))) for row in rows[:5])
    return f"First: {first}{', …' if len(rows) > 5 else '.'}"


def _cell(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
