"""`backfills failures`: the ledger of what could not be written, and another try for it."""

from difflib import get_close_matches
from typing import Annotated, Any

import typer
from psycopg.rows import dict_row

from dagster_backfills.cli.domain_runs import RETRIED, database, retry_failed
from dagster_backfills.cli.errors import FAILURES, OK
from dagster_backfills.cli.instance import asset_names
from dagster_backfills.cli.output import confirm, print_json, print_table, say
from dagster_backfills.errors import UserError

_WRITTEN = "select asset from backfill.failures union select asset from backfill.batches"

app = typer.Typer(no_args_is_help=True, help="What could not be written, with the database's own message.")
Asset = Annotated[str, typer.Option(help="Only this asset (schema/table) or domain (schema).")]

_LEDGER = """
select asset, partition, unit, error_class, sqlstate, message, attempts, first_seen, last_seen, resolved_at, run_id
from backfill.failures
where (%(all)s or resolved_at is null)
    and (%(asset)s = '' or asset = %(asset)s or split_part(asset, '/', 1) = %(asset)s)
order by resolved_at is not null, last_seen desc, id
limit %(limit)s
"""


@app.command("list")
def list_(
    asset: Asset = "",
    resolved: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """The open entries of the ledger, the newest first."""
    entries = _entries(asset, resolved, limit)
    if json:
        print_json(entries)
        return
    if not entries:
        say("Nothing has failed." if not asset else f"Nothing of {asset!r} has failed.")
        return
    print_table(
        ["asset", "partition", "unit", "message", "attempts", "last seen", "resolved"],
        [
            (
                e["asset"],
                e["partition"],
                e["unit"],
                e["message"],
                e["attempts"],
                e["last_seen"],
                e["resolved_at"],
            )
            for e in entries
        ],
    )


@app.command()
def retry(
    asset: Asset = "", yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Try once more whatever is open, in one run a domain. What succeeds is resolved."""
    entries = _entries(asset, False, None)
    domains = sorted({entry["asset"].split("/")[0] for entry in entries})
    if not entries:
        say("Nothing has failed: there is nothing to retry.")
        return
    known = [domain for domain in domains if domain in RETRIED]
    for domain in domains:
        if domain not in RETRIED:
            say(
                f"Failures of {domain} are tried again in the UI (backfills up): its asset, Materialize…, Failed."
            )
    if not known:
        raise typer.Exit(FAILURES)
    mine = [entry for entry in entries if entry["asset"].split("/")[0] in known]
    confirm(f"Retry {len(mine):,} failures of {', '.join(known)}?", yes)
    codes = [
        retry_failed(
            domain, {e["partition"] for e in mine if e["asset"].startswith(f"{domain}/") and e["partition"]}
        )
        for domain in known
    ]
    left = len(_entries(asset, False, None))
    say(f"{len(entries) - left:,} of {len(entries):,} are mended." if left else "All are mended.")
    raise typer.Exit(max([*codes, FAILURES if left else OK]))


def _entries(asset: str, resolved: bool, limit: int | None) -> list[dict[str, Any]]:
    with database() as conn, conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_LEDGER, {"all": resolved, "asset": asset, "limit": limit}).fetchall()
        if asset and not found:
            _require_known(asset, {row["asset"] for row in cursor.execute(_WRITTEN)})
    return found


def _require_known(name: str, written: set[str]) -> None:
    """Refuse what is neither an asset of the code location or of another's that has written here, nor a domain."""
    assets = written | asset_names()
    known = sorted(assets | {asset.partition("/")[0] for asset in assets})
    if name not in known:
        close = get_close_matches(name.casefold(), known, n=3, cutoff=0.5) or known
        raise UserError(f"There is no asset or domain {name!r}.", f"There are {', '.join(close)}.")
