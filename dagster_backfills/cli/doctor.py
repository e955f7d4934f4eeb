"""`backfills doctor`: whether everything that the backfills need is there and well. Starts and changes nothing."""

from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.finding import Finding, Level, found_by
from dagster_backfills.cli.output import print_json, print_table, say
from dagster_backfills.domain_switches import switched_off


def doctor(
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """Check this machine, Postgres, Dagster, NATS and the inbox; say what to do. Exit code 1 if there is an error."""
    findings = examine()
    errors = sum(each.level is Level.ERROR for each in findings)
    warnings = sum(each.level is Level.WARNING for each in findings)
    if json:
        print_json({"ok": not errors, "findings": [asdict(each) for each in findings]})
    else:
        print_table(
            ["state", "check", "found", "what to do"],
            [(each.level.value, each.check, each.found, each.advice) for each in findings],
            fold=True,
        )
        say(f"{errors} errors, {warnings} warnings." if errors or warnings else "All is well.")
    if errors:
        raise typer.Exit(FAILURES)


def examine() -> list[Finding]:
    """Every check in the order of what depends on what."""
    from dagster_backfills.cli import doctor_dagster, doctor_machine, doctor_postgres

    url, findings = doctor_postgres.database_url()
    machine = [check for each in doctor_machine.CHECKS for check in found_by(each)]
    if url:
        connected = doctor_postgres.examine(url)
        findings += connected
        if all(each.check != "postgres" or each.level is not Level.ERROR for each in connected):
            findings += found_by(doctor_dagster.declarations)
            findings += found_by(lambda: doctor_dagster.examine(url), "dagster")
    if not any(each.check == "daemon" for each in findings):
        findings.append(Finding.warning("dagster", "Not looked at: its tables are in the database."))
    off = switched_off()
    around = [
        found for domain, check in doctor_machine.NEIGHBOURS if domain not in off for found in found_by(check)
    ]
    return [*machine, *findings, *around]
