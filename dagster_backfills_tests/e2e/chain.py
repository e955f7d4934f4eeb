"""Marks days as scored, for tests in which the scoring chain must have nothing to catch up with."""

from collections.abc import Sequence
from datetime import date

import psycopg

ASSETS = ["scoring/commitment_scores", "scoring/churn_risk_scores", "scoring/coach_actions"]


def worked_before(conn: psycopg.Connection, days: Sequence[date]) -> None:
    """Marks every step of these days as completed by an old run, without any rows."""
    conn.execute(
        "insert into scoring.chain_days (asset, day, run_id, root_run_id, outcome, finished_at)"
        " select a, d, 'earlier', 'earlier', 'complete', now() from unnest(%s::text[]) as a, unnest(%s::date[]) as d",
        [ASSETS, list(days)],
    )
