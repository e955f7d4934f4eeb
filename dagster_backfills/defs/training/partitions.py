"""The partitions of the training domain: one an organization, by its id."""

import dagster as dg

organizations_partitions = dg.DynamicPartitionsDefinition(name="training_organizations")
