"""The domain's settings as a resource, read from the environment when a run or sensor tick starts."""

import dagster as dg

from dagster_backfills.domains.scoring.settings import ScoringSettings, settings_from


@dg.resource(description="Settings of scoring, from environment variables `SCORING_…`.")
def scoring_settings() -> ScoringSettings:
    """Raises UserError, naming the invalid variable."""
    return settings_from()


@dg.definitions
def scoring_resources() -> dg.Definitions:
    return dg.Definitions(resources={"scoring_settings": scoring_settings})
