"""`dagster-webserver` with the same options, and with authentication and authorization."""

import os

from dagster_webserver import app, cli

from dagster_backfills.instance.door.webserver import Door
from dagster_backfills.instance.roles import ROLES_VARIABLE, read_roles


def main() -> None:
    """Serve until interrupted. Raises NotUsableError for an invalid roles file."""
    read_roles(os.environ.get(ROLES_VARIABLE, ""))
    vars(app)["DagsterWebserver"] = Door
    cli.main()


if __name__ == "__main__":
    main()
