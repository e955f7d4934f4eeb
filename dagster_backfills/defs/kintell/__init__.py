"""Dagster definitions of the historical session import: assets, jobs, sensors, checks, resources."""
