"""The partitions of the progress domain: one a cohort, by its id."""

import dagster as dg

cohorts_partitions = dg.DynamicPartitionsDefinition(name="progress_cohorts")
