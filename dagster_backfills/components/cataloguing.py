"""Describes the tables of a project for Dagster's catalog. Apart from `loading`, because sqlglot is slow to import."""

from collections import ChainMap
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.components.loading import declared, declared_folders
from dagster_backfills.dagster import cataloguing
from dagster_backfills.dagster.cataloguing import Described
from dagster_backfills.dagster.project import load_from_defs_folder


def describe(conn: psycopg.Connection[Any], defs: Path) -> Described:
    """Describe every table and view that the definitions in a folder refer to, as the database has it now."""
    queries = ChainMap(*(declared(folder).queries for folder in declared_folders(defs)))
    return cataloguing.describe(conn, load_from_defs_folder(path_within_project=defs), queries)
