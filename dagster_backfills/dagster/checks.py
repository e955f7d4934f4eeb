"""What must hold of a domain's tables: rules, a statement each that gives the rows which break it. None is a pass.

A run that writes judges itself: by the check's own step in a run of assets, by a hook in a run of a job, or where the
assets could not all be written. A periodic run is the net, for runs that were killed and for rules on time that passes.
Each statement is about the whole table and is run once a run, however many partitions that had.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

from dagster_backfills.dagster.tables import table
from dagster_backfills.engine.selection import GENERIC
from dagster_backfills.names import labelled
from dagster_backfills.postgres.statements import Statements

_SHOWN = 20


@dataclass(frozen=True)
class CheckRule:
    """One rule: the asset that it is shown at, its statement's name, and what it says.

    needless: looks at the run's resources and says why the rule need not be asked, if so.
    """

    asset: str
    statement: str
    says: str
    warns: bool = False
    needless: Callable[[Any], str | None] = lambda resources: None


@dataclass(frozen=True)
class CheckRules:
    """The rules of one domain by the names of their checks. The resources `database` and those of `needs` are used."""

    name: str
    rules: Mapping[str, CheckRule]
    statements: Mapping[str, str] | Statements
    binds: Mapping[str, Any]
    every_minutes: int = 10
    needs: frozenset[str] = field(default_factory=frozenset)
    database: str = "postgres"
    names: Callable[[psycopg.Connection[Any]], Mapping[str, str | None]] = lambda conn: {}

    def definition(self) -> dg.AssetChecksDefinition:
        """The rules as checks of their assets."""

        @dg.multi_asset_check(
            name=self.name,
            specs=[
                dg.AssetCheckSpec(
                    name=name,
                    asset=rule.asset.split("/"),
                    description=rule.says,
                    automation_condition=periodically(f"*/{self.every_minutes} * * * *"),
                )
                for name, rule in self.rules.items()
            ],
            can_subset=True,
            required_resource_keys={self.database, *self.needs},
        )
        def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            chosen = {key.name for key in context.selected_asset_check_keys}
            yield from self.judge(context.resources, chosen)

        return checks

    def after(self) -> set[dg.HookDefinition]:
        """Hooks for the step of a job that writes: judged at its end, whether it succeeded or failed."""
        return {self._hook(dg.success_hook, "after"), *self.after_failure()}

    def after_failure(self) -> set[dg.HookDefinition]:
        """A hook for assets: where they could not all be written, the checks' own step is left out."""
        return {self._hook(dg.failure_hook, "after_failure")}

    def _hook(self, kind: Any, when: str) -> dg.HookDefinition:
        made: dg.HookDefinition = kind(
            name=f"{self.name}_{when}", required_resource_keys={self.database, *self.needs}
        )(self._judge_in_hook)
        return made

    def judge(self, resources: Any, chosen: set[str] | None = None) -> Iterator[dg.AssetCheckResult]:
        """The results of all rules, or of those chosen."""
        with getattr(resources, self.database).connect() as conn:
            for name, rule in self.rules.items():
                if chosen is None or name in chosen:
                    yield self._check(conn, name, rule, rule.needless(resources))

    def _check(
        self, conn: psycopg.Connection[Any], name: str, rule: CheckRule, needless: str | None
    ) -> dg.AssetCheckResult:
        """Run the statement and pass if it gives no row; else fail, with the count and the first rows as a table."""
        rows: list[dict[str, Any]] = []
        if not needless:
            cursor = conn.cursor(row_factory=dict_row)
            rows = cursor.execute(self.statements[rule.statement], self.binds).fetchall()
        if rows and (names := self.names(conn)):
            rows = [_with_name(row, names) for row in rows]
        conn.commit()
        metadata: dict[str, Any] = {"breaches": len(rows)}
        if rows:
            metadata["first_breaches"] = table(rows[:_SHOWN])
        return dg.AssetCheckResult(
            asset_key=rule.asset.split("/"),
            check_name=name,
            passed=not rows,
            severity=dg.AssetCheckSeverity.WARN if rule.warns else dg.AssetCheckSeverity.ERROR,
            description=f"Broken by {len(rows):,}: {rule.says} {named(rows)}"
            if rows
            else needless or rule.says,
            metadata={**metadata, **linked(rows)},
        )

    def _judge_in_hook(self, context: dg.HookContext) -> None:
        for result in self.judge(context.resources):
            assert result.asset_key is not None and result.check_name is not None
            # Such a run has planned no check, which an evaluation of its own would need.
            context.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=result.asset_key,
                    check_name=result.check_name,
                    passed=result.passed,
                    severity=result.severity,
                    description=result.description,
                    metadata={**result.metadata, "run": dg.MetadataValue.dagster_run(context.run_id)},
                )
            )


def periodically(cron: str) -> dg.AutomationCondition[Any]:
    """At each tick of the cron expression. Not `on_cron`, which waits until all that is upstream has been updated."""
    tick: Any = dg.AutomationCondition.cron_tick_passed(cron)
    return tick & ~dg.AutomationCondition.in_progress()


def _with_name(row: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """The row, and behind a partition's key its name."""
    found: dict[str, Any] = {}
    for column, value in row.items():
        found[column] = value
        if isinstance(value, str) and names.get(value):
            found["name"] = names[value]
    return found


def named(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first of the rows by their first column, `name`, and the reason if they have a `message` or a `reason`."""
    if not rows:
        return ""
    first = ", ".join(labelled(f"{next(iter(row.values()))}", _words(row)) for row in rows[:5])
    return f"First: {first}{', …' if len(rows) > 5 else '.'}"


def _words(row: Mapping[str, Any]) -> str:
    said = " ".join(str(row.get("message") or row.get("reason") or "").split())[:200]
    return ": ".join(filter(None, [row.get("name"), said]))


def linked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A link to each of the runs that the rows name as `run_id`, and to no more than a few."""
    runs = list(dict.fromkeys(row["run_id"] for row in rows if row.get("run_id")))[:3]
    names = ["failed_in_run", *(f"failed_in_run_{number}" for number in range(2, len(runs) + 1))]
    return {name: dg.MetadataValue.dagster_run(run) for name, run in zip(names, runs, strict=False)}


def engine_rules(first: str, last: str, seconds: int) -> tuple[dict[str, CheckRule], dict[str, str]]:
    """The two rules that hold for every backfill, at its first and last asset; and their statements."""
    waits = f"No partition waits longer than {seconds // 60} minutes to be written."
    rules = {
        "no_open_failures": CheckRule(
            first, "every failure", "Every partition and every unit could be written."
        ),
        "fresh": CheckRule(last, "every late one", waits, warns=True),
    }
    return rules, {"every failure": GENERIC["open_failures"], "every late one": GENERIC["late"]}
