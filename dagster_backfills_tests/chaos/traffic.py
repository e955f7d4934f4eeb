"""The application's writes during a storm: members, answers, files, background jobs. Acknowledged writes are counted.

Every write can be repeated if its answer was lost, as an application would.
"""

import random
import threading
import time

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills_tests.chaos.domains import Expected
from dagster_backfills_tests.chaos.stack import Stack
from dagster_backfills_tests.domains.kintell.sample import mixed_rows, row, write_csv

_TRANSCRIPT = (
    "Welcome. First switch the machine off and lock it. Then put on your gloves and check the guard. "
    "Never reach behind the belt. Now clean the rollers with the brush. After that, unlock the machine and start it. "
    "Listen for odd noises. If there is one, stop at once and call your supervisor. Finally write down what you did."
)


class Traffic(threading.Thread):
    """Writes until `finish` is called."""

    def __init__(self, stack: Stack, expected: Expected, seed: int, files: int, rows: int) -> None:
        super().__init__(daemon=True)
        self._stack, self._expected, self._rng = stack, expected, random.Random(seed)
        self._files, self._rows = files, rows
        self._over = threading.Event()
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Stops once the current writes are acknowledged."""
        self._over.set()
        self.join(120)
        assert not self.is_alive(), "the traffic does not end"
        if self.error:
            raise self.error

    def run(self) -> None:
        try:
            number = 0
            while not self._over.is_set():
                number += 1
                if number % 6 == 1 and len(self._expected.files) < self._files:
                    self._file(len(self._expected.files))
                self._until_acknowledged(number)
                time.sleep(self._rng.uniform(1, 2.5))
        except BaseException as error:
            self.error = error

    def _until_acknowledged(self, number: int) -> None:
        seed = self._rng.random()
        deadline = time.monotonic() + 100
        while True:
            try:
                with self._stack.connect() as conn, conn.transaction():
                    conn.execute("set local lock_timeout = '20s'")
                    self._write(conn, number, random.Random(seed))
                break
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        self._expected.jobs |= {f"job-{number}-{n}" for n in range(5)}

    def _write(self, conn: psycopg.Connection, number: int, rng: random.Random) -> None:
        organizations = [
            r[0] for r in conn.execute("select id from training.organizations order by id limit 500")
        ]
        organization = rng.choice(organizations)
        if number % 5 == 0:
            organization = f"org_storm_{number}"
            conn.execute(
                "insert into training.organizations (id, name) values (%s, 'A new one') on conflict do nothing",
                [organization],
            )
        conn.execute(
            "insert into training.members (id, organization_id, user_email)"
            " select format('mem_storm_%%s_%%s', %s::int, n), %s, 'someone@example.org'"
            " from generate_series(1, 3) as n on conflict do nothing",
            [number, organization],
        )
        users = [
            r[0] for r in conn.execute("select id from progress.users where deleted_at is null order by id")
        ]
        for user in rng.sample(users, 3):
            conn.execute(
                "update progress.user_progress set is_mastered = not is_mastered, selected_options = array[%s],"
                " last_attempt_at = '2026-01-01'::timestamptz + make_interval(mins => %s) where user_id = %s",
                [rng.choice("abcd"), number, user],
            )
        if number % 7 == 0:
            conn.execute("update progress.users set deleted_at = now() where id = %s", [rng.choice(users)])
        for n in range(5):
            given = {"title": f"Job {number}", "transcript": _TRANSCRIPT, "duration": 60 + n}
            queue.enqueue(conn, "sop_generation", given, unique_key=f"job-{number}-{n}")

    def _file(self, number: int) -> None:
        """Puts a file into the inbox. It is complete when it appears under its name."""
        rows = mixed_rows(self._rows)
        for entry in rows:
            if entry["session_id"]:
                entry["session_id"] = f"f{number}-{entry['session_id']}"
        rows.append(row(self._rows, session_id=f"f{number}-last"))
        good = [e["session_id"] for i, e in enumerate(rows) if i % 10 != 9 or i == self._rows]
        name = f"sessions_{number}.csv"
        inbox = self._stack.home / "inbox"
        write_csv(inbox / f"{name}.partial", rows).rename(inbox / name)
        self._expected.files[name] = set(good)
        self._expected.rejected[name] = len(rows) - len(set(good))
