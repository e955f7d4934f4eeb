"""The `backfills` command: starts services, launches Dagster runs and shows their results. No domain logic here."""


def main() -> None:
    from dagster_backfills.cli.app import run

    run()
