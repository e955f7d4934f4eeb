"""What a forked program finds imported: libraries, and those of our modules that need no library with threads.

Nothing here may read environment variables or start threads. `definitions` and `defs` are imported by the programs.
"""

import gc
from importlib import import_module
from pkgutil import iter_modules

import psutil

LIBRARIES = (
    "antlr4.LL1Analyzer",
    "dagster._cli.api",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._daemon.cli",
    "dagster._grpc.server",
    "dagster.components.core.snapshot",
    "dagster_postgres",
    "dagster_webserver.cli",
    "fsspec",
    "jinja2.nativetypes",
    "psycopg",
    "rich.live",
    "rich.table",
    "sqlglot",
    "tomlkit",
    "typer",
)
PACKAGES = ("cli", "components", "dagster", "engine", "engine.declared", "instance", "postgres")
# These import pandas, or a server.
LEFT_OUT = ("dagster_backfills.cli.serve", "dagster_backfills.dagster.load")

for library in LIBRARIES:
    import_module(library)
for package in PACKAGES:
    path = import_module(f"dagster_backfills.{package}").__path__
    for module in iter_modules(path, f"dagster_backfills.{package}."):
        if not module.ispkg and module.name not in LEFT_OUT:
            import_module(module.name)
assert psutil.Process().num_threads() == 1
# Otherwise each fork would copy what garbage collection touches.
gc.collect()
gc.freeze()
