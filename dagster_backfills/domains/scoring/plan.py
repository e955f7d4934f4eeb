"""Plan the scoring of days: the engine plans the chain's tables as one set, for each day separately.

The result is exact over several days, since no day's rows depend on another day's scores.
"""

from collections.abc import Callable, Sequence

from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.plan import Report, plan
from dagster_backfills.engine.session import Connect


def plan_days(
    connect: Connect,
    days: Sequence[str],
    settings: ScoringSettings,
    log: Callable[[str], None] = lambda line: None,
    gym: str | None = None,
) -> Report:
    """What a run of the chain for these days would change, for the members of one gym or of all."""
    from dagster_backfills.domains.scoring.histories import write_of  # its rules import pandas

    writes = [write_of(target, settings.parsed_weights, gym) for target in CHAIN]
    return plan(connect, [(writes, [day]) for day in days], settings.engine(), log, table_by_table=True)
