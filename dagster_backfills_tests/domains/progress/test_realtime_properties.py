"""The triggers under random changes to every source table, by several concurrent transactions.

One thread drives all sessions. A statement that would wait for another session fails at once, and
its transaction is rolled back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills_tests.domains.progress.reference import (
    CohortStats,
    UserStats,
    cohort_stats,
    read_sources,
    stored_user_stats,
    user_stats,
)

SESSIONS = 3
PROGRESS = {"save", "save_all", "forget", "hand_over"}
ids = {
    "cohort": st.sampled_from(["c1", "c2", "c, 'ö%"]),
    "user": st.sampled_from(["u1", "u2", "u3", "u/4"]),
    "class": st.sampled_from(["k1", "k2", "k3"]),
    "module": st.sampled_from(["m1", "m2", "m3"]),
    "question": st.sampled_from(["q1", "q2", "q3", "q4"]),
    "options": st.sampled_from([[], ["a"], ["a", "b"]]),
    "mastered": st.booleans(),
    "at": st.sampled_from([None, "2024-02-29 12:00+00", "2025-01-01 00:00+02"]),
    "deleted": st.sampled_from([None, "2025-03-01 00:00+00"]),
}
STATEMENTS = {
    "save": """
        insert into progress.user_progress as p values (
            %(user)s, %(question)s, %(class)s, %(options)s, '{}', %(mastered)s, %(at)s
        )
        on conflict (user_id, question_id) do update set
            class_id = excluded.class_id, is_mastered = excluded.is_mastered,
            selected_options = '{}', eliminated_options = excluded.selected_options,
            last_attempt_at = excluded.last_attempt_at
        where (p.class_id, p.is_mastered, p.selected_options || p.eliminated_options <> '{}',
                p.last_attempt_at)
            is distinct from (%(class)s, %(mastered)s, %(options)s::text[] <> '{}', %(at)s::timestamptz)
        returning array[user_id]""",
    "save_all": """
        update progress.user_progress set is_mastered = %(mastered)s
        where class_id = %(class)s and is_mastered <> %(mastered)s returning array[user_id]""",
    "forget": "delete from progress.user_progress where question_id = %(question)s returning array[user_id]",
    "hand_over": """
        update progress.user_progress as p set user_id = %(user)s from progress.user_progress as o
        where o.user_id = p.user_id and o.question_id = p.question_id and p.question_id = %(question)s
            and p.user_id <> %(user)s
        returning array[p.user_id, o.user_id]""",
    "add_cohort": "insert into progress.cohorts (id, school_id, name) values (%(cohort)s, 's', 'C')",
    "drop_cohort": "delete from progress.cohorts where id = %(cohort)s",
    "add_user": "insert into progress.users values (%(user)s, %(cohort)s, 'U', 'u@example.org', %(deleted)s)",
    "move_user": "update progress.users set cohort_id = %(cohort)s where id = %(user)s",
    "leave_or_return": "update progress.users set deleted_at = %(deleted)s where id = %(user)s",
    "drop_user": "delete from progress.users where id = %(user)s",
    "add_class": "insert into progress.classes values (%(class)s, %(cohort)s)",
    "move_class": "update progress.classes set cohort_id = %(cohort)s where id = %(class)s",
    "drop_class": "delete from progress.classes where id = %(class)s",
    "add_module": "insert into progress.modules values (%(module)s, %(class)s)",
    "move_module": "update progress.modules set class_id = %(class)s where id = %(module)s",
    "drop_module": "delete from progress.modules where id = %(module)s",
    "add_question": "insert into progress.questions values (%(question)s, %(module)s)",
    "move_question": "update progress.questions set module_id = %(module)s where id = %(question)s",
    "drop_question": "delete from progress.questions where id = %(question)s",
}
# Saves are the most frequent change, and they need existing students and questions.
kinds = st.one_of(st.sampled_from(sorted(STATEMENTS)), st.sampled_from(sorted(PROGRESS)))
change = st.tuples(st.integers(0, SESSIONS - 1), kinds, st.fixed_dictionaries(ids))
end = st.tuples(st.integers(0, SESSIONS - 1), st.sampled_from(["commit", "commit", "rollback"]), st.none())
START = """
    insert into progress.schools values ('s', 'School');
    insert into progress.cohorts (id, school_id, name) values ('c1', 's', 'One'), ('c2', 's', 'Two');
    insert into progress.classes values ('k1', 'c1'), ('k2', 'c2');
    insert into progress.modules values ('m1', 'k1'), ('m2', 'k2');
    insert into progress.questions values ('q1', 'm1'), ('q2', 'm1'), ('q3', 'm2');
    insert into progress.users values ('u1', 'c1', 'U', 'e'), ('u2', 'c1', 'U', 'e'), ('u3', 'c2', 'U', 'e');
    insert into progress.user_progress (user_id, question_id, class_id, selected_options) values
        ('u1', 'q1', 'k1', '{a}'), ('u3', 'q3', 'k2', '{a}');
"""
CLEAN = """
    set session_replication_role = replica;
    delete from progress.user_progress; delete from progress.questions; delete from progress.modules;
    delete from progress.classes; delete from progress.users; delete from progress.cohorts;
    delete from progress.schools; delete from progress.user_progress_stats; delete from progress.cohort_stats;
    delete from backfill.stale_marks;
    set session_replication_role = origin;
"""


@dataclass
class Session:
    """One connection, and the users whose progress its open transaction has changed.

    `touched`: the version of the world in which each was last computed. Later changes of other transactions
    are not included.
    """

    conn: psycopg.Connection
    touched: dict[str, int] = field(default_factory=dict)
    own_moves: int = 0


@dataclass
class World:
    """All sessions, and the number of committed changes to anything except progress."""

    watcher: psycopg.Connection
    sessions: list[Session]
    moves: int = 0

    def change(self, session: Session, kind: str, binds: dict[str, object]) -> None:
        try:
            with session.conn.cursor() as cur:
                cur.execute(STATEMENTS[kind], binds)
                if kind in PROGRESS:
                    users = [user for (touched,) in cur.fetchall() for user in touched]
                    session.touched |= dict.fromkeys(users, self.moves + session.own_moves)
                else:
                    session.own_moves += 1
        except (psycopg.IntegrityError, psycopg.errors.LockNotAvailable):
            self.end(session, "rollback")

    def end(self, session: Session, how: str) -> None:
        if how == "rollback":
            session.conn.rollback()
        else:
            self._commit(session)
        session.touched, session.own_moves = {}, 0

    def _commit(self, session: Session) -> None:
        xid = session.conn.execute("select pg_current_xact_id()::text").fetchone()[0]  # type: ignore[index]
        before = self._reference()
        session.conn.commit()
        users, cohorts = self._reference()
        changed = set()
        for old, new in ((before[0], users), (users, before[0])):
            changed |= {stats.cohort_id for key, stats in new.items() if old.get(key) != stats}
        changed |= {key for key, stats in cohorts.items() if before[1].get(key) != stats}
        self._assert_marked(changed & cohorts.keys(), xid)

        now = self.moves + session.own_moves
        stored = stored_user_stats(self.watcher)
        for user in (user for user, world in session.touched.items() if world == now):
            assert stored.get(user) == users.get(user)
        self.moves += session.own_moves

    def _reference(self) -> tuple[dict[str, UserStats], dict[str, CohortStats]]:
        sources = read_sources(self.watcher)
        return user_stats(sources), cohort_stats(sources)

    def _assert_marked(self, cohorts: set[str], xid: str) -> None:
        rows = self.watcher.execute(
            "select partition, count(distinct asset) from backfill.stale_marks"
            " where xid::text = %s group by partition",
            [xid],
        )
        assert cohorts <= {partition for partition, assets in rows if assets == 2}


@pytest.fixture
def connections(make_database: Callable[..., str]) -> Iterator[list[psycopg.Connection]]:
    """An autocommit connection for checks, and the sessions, which do not wait for locks."""
    url = make_database()
    watcher = psycopg.connect(url, autocommit=True)
    sessions = [psycopg.connect(url, options="-c lock_timeout=5ms") for _ in range(SESSIONS)]
    yield [watcher, *sessions]
    for conn in (watcher, *sessions):
        conn.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.one_of(change, change, change, end), min_size=5, max_size=40))
def test_touched_students_are_right_and_changed_cohorts_marked_after_every_commit(connections, changes):
    watcher, *sessions = connections
    for conn in sessions:
        conn.rollback()
    watcher.execute(CLEAN + START)
    world = World(watcher, [Session(conn) for conn in sessions])
    for number, kind, binds in changes:
        session = world.sessions[number]
        if binds is None:
            world.end(session, kind)
        else:
            world.change(session, kind, binds)
    for session in world.sessions:
        world.end(session, "commit")
