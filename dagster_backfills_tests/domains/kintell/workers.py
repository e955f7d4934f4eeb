"""Import workers as separate processes that tests can kill, stop and continue.

Run as a module it is a nursery: it imports what a worker needs, then forks one for each line it is given.
"""

import json
import os
import subprocess
import sys
from typing import IO, Any, cast


class Nursery:
    """Makes worker processes quickly. A context."""

    def __enter__(self) -> "Nursery":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dagster_backfills_tests.domains.kintell.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._out.readline() == "ready\n"
        return self

    @property
    def _out(self) -> IO[str]:
        return cast(IO[str], self.process.stdout)

    def _ask(self, **what: Any) -> str:
        stdin = cast(IO[str], self.process.stdin)
        stdin.write(json.dumps(what) + "\n")
        stdin.flush()
        return self._out.readline().strip()

    def start(self, url: str, job: object, root: object, **options: Any) -> int:
        """The pid of a worker that imports `job`."""
        return int(self._ask(url=url, job=str(job), root=str(root), options=options))

    def outcome(self, pid: int) -> str:
        """Wait for a worker's end: `completed` and the like, an exception's text, or `killed`."""
        return self._ask(wait=pid)

    def __exit__(self, *_: object) -> None:
        cast(IO[str], self.process.stdin).close()
        self.process.wait(timeout=30)


def _work(what: dict[str, Any], out: int) -> None:
    from uuid import UUID

    from dagster_backfills.domains.kintell.importing.importer import Options, run_import

    try:
        text = run_import(what["url"], UUID(what["job"]), Options(**what["options"]), [what["root"]]).status
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    os.write(out, text.replace("\n", " ").encode())


def _nurse() -> None:
    import pyarrow  # noqa: F401

    from dagster_backfills.domains.kintell.rows import rules, schemas
    from dagster_backfills.domains.kintell.statements import STATEMENTS

    assert STATEMENTS.by_name
    schemas.text_rows(), schemas.session_rows()
    rules.is_address("someone@example.com")
    print("ready", flush=True)  # noqa: T201
    pipes: dict[int, int] = {}
    for line in sys.stdin:
        what = json.loads(line)
        if "wait" in what:
            os.waitpid(what["wait"], 0)
            text = os.read(pipes.pop(what["wait"]), 65536).decode() or "killed"
            print(text, flush=True)  # noqa: T201
            continue
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _work(what, write)
            os._exit(0)
        os.close(write)
        pipes[pid] = read
        print(pid, flush=True)  # noqa: T201


if __name__ == "__main__":
    _nurse()
