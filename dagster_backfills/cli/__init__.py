"""The command `backfills`: launches and reads Dagster runs, and starts what they need. No rule of a domain is here."""


def main() -> None:
    from dagster_backfills.cli.app import run

    run()
