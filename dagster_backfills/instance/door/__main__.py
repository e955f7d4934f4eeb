"""`dagster-webserver` with the same options, behind the door."""

import os

from dagster_webserver import app, cli

from dagster_backfills.instance.door.webserver import Door
from dagster_backfills.roles import ROLES_VARIABLE, read_roles


def main() -> None:
    """Serve until interrupted. Raises NotUsableError for roles that can't be read."""
    read_roles(os.environ.get(ROLES_VARIABLE, ""))
    vars(app)["DagsterWebserver"] = Door
    cli.main()


if __name__ == "__main__":
    main()
