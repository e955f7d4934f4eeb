"""The resource of this domain: its settings, read from the environment when a run or a sensor starts."""

import dagster as dg

from dagster_backfills.domains.scoring.settings import ScoringSettings, settings_from


@dg.resource(description="What of scoring is configured, by variables `SCORING_…`.")
def scoring_settings() -> ScoringSettings:
    """Raises UserError that names the variable that is wrong."""
    return settings_from()


@dg.definitions
def scoring_resources() -> dg.Definitions:
    return dg.Definitions(resources={"scoring_settings": scoring_settings})
