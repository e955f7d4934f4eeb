"""Asset checks from rules. Each rule is a statement that returns the rows which break it; no rows is a pass.

A run of assets evaluates the checks in their own step. A hook evaluates them in a run of an op job, and in a run of
assets that could not all be written. A periodic run covers killed runs and rules that depend on the time. Each
statement covers the whole table and runs once per run, however many partitions the run has.
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
    """One rule: the asset that it belongs to, its statement's name and its description.

    skip_reason: given the run's resources, returns why the rule passes without running its statement, or None.
    """

    asset: str
    statement: str
    description: str
    warns: bool = False
    skip_reason: Callable[[Any], str | None] = lambda resources: None


@dataclass(frozen=True)
class CheckRules:
    """The rules of one domain, by check name. Requires the resource `database` and those in `needs`."""

    name: str
    rules: Mapping[str, CheckRule]
    statements: Mapping[str, str] | Statements
    binds: Mapping[str, Any]
    every_minutes: int = 10
    needs: frozenset[str] = field(default_factory=frozenset)
    database: str = "postgres"
    names: Callable[[psycopg.Connection[Any]], Mapping[str, str | None]] = lambda conn: {}

    def definition(self) -> dg.AssetChecksDefinition:
        """The rules as asset checks."""

        @dg.multi_asset_check(
            name=self.name,
            specs=[
                dg.AssetCheckSpec(
                    name=name,
                    asset=rule.asset.split("/"),
                    description=rule.description,
                    automation_condition=periodically(f"*/{self.every_minutes} * * * *"),
                )
                for name, rule in self.rules.items()
            ],
            can_subset=True,
            required_resource_keys={self.database, *self.needs},
        )
        def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            chosen = {key.name for key in context.selected_asset_check_keys}
            yield from self.evaluate(context.resources, chosen)

        return checks

    def after(self) -> set[dg.HookDefinition]:
        """Hooks for the writing step of an op job: evaluate the checks when the step has succeeded or failed."""
        return {self._hook(dg.success_hook, "after"), *self.after_failure()}

    def after_failure(self) -> set[dg.HookDefinition]:
        """A hook for assets: when their step fails, Dagster skips the checks' own step."""
        return {self._hook(dg.failure_hook, "after_failure")}

    def _hook(self, kind: Any, when: str) -> dg.HookDefinition:
        hook: dg.HookDefinition = kind(
            name=f"{self.name}_{when}", required_resource_keys={self.database, *self.needs}
        )(self._evaluate_in_hook)
        return hook

    def evaluate(self, resources: Any, chosen: set[str] | None = None) -> Iterator[dg.AssetCheckResult]:
        """The results of all rules, or of the chosen ones."""
        with getattr(resources, self.database).connect() as conn:
            for name, rule in self.rules.items():
                if chosen is None or name in chosen:
                    yield self._check(conn, name, rule, rule.skip_reason(resources))

    def _check(
        self, conn: psycopg.Connection[Any], name: str, rule: CheckRule, skip_reason: str | None
    ) -> dg.AssetCheckResult:
        """Run the statement. Pass if it returns no rows; else fail with the count and the first rows as a table."""
        rows: list[dict[str, Any]] = []
        if not skip_reason:
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
            description=f"Broken by {len(rows):,}: {rule.description} {first_rows(rows)}"
            if rows
            else skip_reason or rule.description,
            metadata={**metadata, **run_links(rows)},
        )

    def _evaluate_in_hook(self, context: dg.HookContext) -> None:
        for result in self.evaluate(context.resources):
            assert result.asset_key is not None and result.check_name is not None
            # The run has no planned check that an evaluation in the run could belong to.
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
    """True at each tick of the cron expression. Unlike `on_cron`, does not wait for upstream assets to be updated."""
    tick: Any = dg.AutomationCondition.cron_tick_passed(cron)
    return tick & ~dg.AutomationCondition.in_progress()


def _with_name(row: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """The row, with the partition's name inserted after its key."""
    extended: dict[str, Any] = {}
    for column, value in row.items():
        extended[column] = value
        if isinstance(value, str) and names.get(value):
            extended["name"] = names[value]
    return extended


def first_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as text: the first column, then `name` and `message` or `reason` if the rows have them."""
    if not rows:
        return ""
    first = ", ".join(labelled(f"{next(iter(row.values()))}", _details(row)) for row in rows[:5])
    return f"First: {first}{', …' if len(rows) > 5 else '.'}"


def _details(row: Mapping[str, Any]) -> str:
    reason = " ".join(str(row.get("message") or row.get("reason") or "").split())[:200]
    return ": ".join(filter(None, [row.get("name"), reason]))


def run_links(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Links to the first few distinct runs in the rows' `run_id`."""
    runs = list(dict.fromkeys(row["run_id"] for row in rows if row.get("run_id")))[:3]
    names = ["failed_in_run", *(f"failed_in_run_{number}" for number in range(2, len(runs) + 1))]
    return {name: dg.MetadataValue.dagster_run(run) for name, run in zip(names, runs, strict=False)}


def engine_rules(first: str, last: str, seconds: int) -> tuple[dict[str, CheckRule], dict[str, str]]:
    """The two rules of every backfill, on its first and last asset, and their statements."""
    fresh = f"No partition has waited longer than {seconds // 60} minutes to be written."
    rules = {
        "no_open_failures": CheckRule(
            first, "every failure", "No partition and no unit has an unresolved failure."
        ),
        "fresh": CheckRule(last, "every late one", fresh, warns=True),
    }
    return rules, {"every failure": GENERIC["open_failures"], "every late one": GENERIC["late"]}
