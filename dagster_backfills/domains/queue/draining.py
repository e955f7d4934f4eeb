"""How many runs work the queue off. Pure. Not here: who launches them."""

from dagster_backfills.domains.queue.settings import DrainPolicy


def runs_to_launch(due: int, oldest_seconds: float, active: int, policy: DrainPolicy) -> int:
    """How many runs to launch now: 0 or 1, so that what the last one launched does is seen first."""
    if due == 0 or active >= policy.max_runs:
        return 0
    if active == 0:
        return 1
    return int(oldest_seconds >= policy.further_run_after_seconds)
