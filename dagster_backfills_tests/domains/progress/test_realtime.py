"""The triggers: a student's statistics are updated at once, and exactly the changed cohorts are marked."""

import psycopg
import pytest
from psycopg import sql

from dagster_backfills_tests.domains.progress.reference import stored_user_stats
from dagster_backfills_tests.domains.progress.small_school import assert_right, counts, marked, save


def test_a_new_student_has_zeros_at_once_and_makes_the_cohort_stale(school):
    assert counts(school, "ann") == (0, 0, 3)
    school.execute("insert into progress.users values ('dia', 'c2', 'Dia', 'd@example.org')")
    assert counts(school, "dia") == (0, 0, 1)
    assert marked(school) == {"c2"}


def test_saving_progress_updates_the_student_in_the_same_transaction_and_marks_the_cohort(school):
    save(school, "ann", "q1", "k1", ["b"])
    save(school, "ann", "q2", "k1", [])
    school.execute("update progress.user_progress set is_mastered = true where question_id = 'q1'")
    assert counts(school, "ann") == (1, 1, 3)
    assert counts(school, "bob") == (0, 0, 3)
    assert marked(school) == {"c1"}
    assert_right(school)


def test_an_eliminated_option_alone_is_an_interaction(school):
    school.execute(
        "insert into progress.user_progress (user_id, question_id, class_id, eliminated_options)"
        " values ('ann', 'q1', 'k1', '{a}')"
    )
    assert counts(school, "ann") == (1, 0, 3)


def test_progress_in_another_cohorts_class_does_not_count(school):
    save(school, "ann", "q4", "k2", ["a"])
    assert counts(school, "ann") == (0, 0, 3)
    assert_right(school)


def test_removed_progress_no_longer_counts(school):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("delete from progress.user_progress where user_id = 'ann'")
    assert counts(school, "ann") == (0, 0, 3)
    assert_right(school)


def test_progress_reassigned_to_another_student_updates_both_rows(school):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("update progress.user_progress set user_id = 'cem' where user_id = 'ann'")
    assert counts(school, "ann") == (0, 0, 3)
    assert marked(school) == {"c1", "c2"}
    assert_right(school)


def test_saving_the_same_answer_again_writes_no_statistics_and_marks_nothing(school):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("delete from backfill.stale_marks")
    version = (
        "select xmin::text, ctid::text, updated_at from progress.user_progress_stats where user_id = 'ann'"
    )
    before = school.execute(version).fetchone()
    school.execute("update progress.user_progress set selected_options = '{c}' where user_id = 'ann'")
    assert school.execute(version).fetchone() == before
    assert marked(school) == set()


def test_a_save_that_does_not_change_the_counts_does_not_rewrite_the_row(school):
    """Replacing q1 by q2 is a real change, but the resulting row is the same."""
    save(school, "ann", "q1", "k1", ["b"])
    version = (
        "select xmin::text, ctid::text, updated_at from progress.user_progress_stats where user_id = 'ann'"
    )
    before = school.execute(version).fetchone()
    school.execute("update progress.user_progress set question_id = 'q2' where user_id = 'ann'")
    assert school.execute(version).fetchone() == before


@pytest.mark.parametrize(
    ("change", "stale", "row"),
    [
        ("update progress.users set name = 'Anna' where id = 'ann'", set(), (1, 0, 3)),
        ("update progress.users set deleted_at = now() where id = 'ann'", {"c1"}, None),
        ("update progress.users set cohort_id = 'c2' where id = 'ann'", {"c1", "c2"}, (0, 0, 1)),
        ("delete from progress.users where id = 'ann'", {"c1"}, None),
    ],
)
def test_a_change_of_a_student_is_in_the_statistics_at_once(school, change, stale, row):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("delete from backfill.stale_marks")
    school.execute(change)
    assert counts(school, "ann") == row
    assert marked(school) == stale
    assert_right(school)


def test_a_restored_student_has_a_row_at_once(school):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("update progress.users set deleted_at = now() where id = 'ann'")
    save(school, "ann", "q2", "k1", ["b"])
    assert counts(school, "ann") is None
    school.execute("delete from backfill.stale_marks")
    school.execute("update progress.users set deleted_at = null where id = 'ann'")
    assert counts(school, "ann") == (2, 0, 3)
    assert marked(school) == {"c1"}


def test_a_leftover_row_of_a_deleted_student_is_removed_by_the_next_save(school):
    school.execute("update progress.users set deleted_at = now() where id = 'ann'")
    school.execute("insert into progress.user_progress_stats values ('ann', 'c1', 1, 1, 1)")
    save(school, "ann", "q1", "k1", ["b"])
    assert counts(school, "ann") is None


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("insert into progress.classes values ('new', 'c2')", {"c2"}),
        ("insert into progress.modules values ('new', 'k2')", {"c2"}),
        ("insert into progress.questions values ('new', 'm2')", {"c2"}),
        ("update progress.classes set cohort_id = 'c2' where id = 'k1b'", {"c1", "c2"}),
        ("update progress.modules set class_id = 'k2' where id = 'm1b'", {"c1", "c2"}),
        ("update progress.questions set module_id = 'm2' where id = 'q3'", {"c1", "c2"}),
        ("update progress.questions set module_id = module_id", set()),
        ("update progress.classes set cohort_id = cohort_id", set()),
        ("update progress.modules set class_id = class_id", set()),
        ("delete from progress.questions where id = 'q4'", {"c2"}),
        ("delete from progress.modules where id = 'm2'", {"c2"}),
        ("delete from progress.classes where id = 'k2'", {"c2"}),
        ("insert into progress.cohorts (id, school_id, name) values ('c3', 's', 'Empty')", {"c3"}),
        ("update progress.cohorts set name = 'Uno' where id = 'c1'", set()),
        ("truncate progress.user_progress", {"c1", "c2"}),
        ("truncate progress.questions cascade", {"c1", "c2"}),
        ("truncate progress.modules cascade", {"c1", "c2"}),
        ("truncate progress.classes cascade", {"c1", "c2"}),
        ("truncate progress.users cascade", {"c1", "c2"}),
        ("truncate progress.cohorts cascade", set()),
    ],
)
def test_a_change_of_content_marks_exactly_the_affected_cohorts(school, change, stale):
    school.execute(change)
    assert marked(school) == stale


def test_truncated_progress_leaves_zeros(school):
    save(school, "ann", "q1", "k1", ["b"])
    school.execute("truncate progress.user_progress")
    assert_right(school)
    assert counts(school, "ann") == (0, 0, 3)


def test_the_progress_of_a_deleted_class_no_longer_counts(school):
    save(school, "ann", "q1", "k1", ["b"])
    save(school, "ann", "q3", "k1b", ["b"])
    school.execute("delete from progress.classes where id = 'k1'")
    assert counts(school, "ann") == (1, 0, 1)


def test_deleting_a_cohort_deletes_its_statistics(school):
    save(school, "ann", "q1", "k1", ["b"])
    save(school, "cem", "q4", "k2", ["b"])
    school.execute("insert into progress.cohort_stats values ('c1', 2, 3, 2, 17)")
    school.execute("delete from progress.cohorts where id = 'c1'")
    assert set(stored_user_stats(school)) == {"cem"}
    assert school.execute("select count(*) from progress.cohort_stats").fetchone() == (0,)


def test_a_cohort_with_a_new_id_is_marked_under_the_new_id(school):
    school.execute("insert into progress.cohorts (id, school_id, name) values ('c3', 's', 'Empty')")
    school.execute("update progress.cohorts set id = 'c4' where id = 'c3'")
    assert "c4" in marked(school)


def test_fifty_thousand_rows_in_one_copy_cause_one_recomputation(school):
    school.execute("insert into progress.questions select 'x' || i, 'm1' from generate_series(1, 500) as i")
    school.execute(
        "insert into progress.users"
        " select 'u' || i, 'c1', 'n', 'e@example.org' from generate_series(1, 100) as i"
    )
    school.execute("delete from backfill.stale_marks")
    school.execute("set track_functions = 'all'")
    with school.transaction():
        with school.cursor().copy(
            "copy progress.user_progress (user_id, question_id, class_id, selected_options) from stdin"
        ) as copy:
            for user in range(1, 101):
                copy.write("".join(f"u{user}\tx{question}\tk1\t{{a}}\n" for question in range(1, 501)))
        calls = dict(school.execute("select funcname, calls from pg_stat_xact_user_functions").fetchall())
    assert calls["sources_changed"] == calls["refresh_user_stats"] == calls["write_user_stats"] == 1
    assert school.execute("select count(*) from backfill.stale_marks").fetchone() == (2,)
    interacted = (
        "select distinct questions_interacted from progress.user_progress_stats where user_id like 'u%'"
    )
    assert school.execute(interacted).fetchall() == [(500,)]


def test_a_role_that_may_only_save_progress_needs_no_right_on_the_statistics(school, server_role):
    school.execute(sql.SQL("grant usage on schema progress to {}").format(server_role))
    school.execute(
        sql.SQL("grant select, insert, update on progress.user_progress to {}").format(server_role)
    )
    school.execute(sql.SQL("set role {}").format(server_role))
    save(school, "ann", "q1", "k1", ["b"])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        school.execute("select * from progress.user_progress_stats")
    school.execute("reset role")
    assert counts(school, "ann") == (1, 0, 3)
    assert marked(school) == {"c1"}
