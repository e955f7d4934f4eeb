"""`python -m dagster`, whose `dev` command starts the webserver with authentication and authorization."""

import runpy

from dagster_backfills.dagster.private import replace_webserver_of_dev

if __name__ == "__main__":
    replace_webserver_of_dev("dagster_backfills.instance.door")
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)
