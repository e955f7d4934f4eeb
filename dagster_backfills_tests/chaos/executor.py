"""`dagster job execute` in forked processes that have already loaded the code: one per line of arguments.

As a program, it prints the child's process ID for each line. The child is an ordinary run.
"""

import json
import os
import sys


def main() -> None:
    from dagster._cli import create_dagster_cli

    import dagster_backfills.definitions as location

    location.defs()
    cli = create_dagster_cli()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            log = os.open(os.environ["DAGSTER_HOME"] + "/runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 1
            try:
                cli(json.loads(line), standalone_mode=False)
                code = 0
            finally:
                os._exit(code)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
