"""The domains' cores, which know no Dagster."""
