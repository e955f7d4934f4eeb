"""The shapes of the sample data: who is where, and who has answered how many of which questions.

Everything is drawn for whole tables at once. Not here: names, loading.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dagster_backfills.samples.progress_names import GIVEN_NAMES, ODD_IDS, SCHOOLS, SUBJECTS, SURNAMES, TERMS

Numbers = np.ndarray[Any, Any]


_NOW = int(datetime(2025, 9, 1, tzinfo=UTC).timestamp())
DAY = 86_400
# What a student has chosen and crossed out, as Postgres arrays; an untouched question has neither.
_SELECTED = ["{}", "{a}", "{b}", "{c}", "{d}", "{a,c}", "{b,d}", '{"none of these, or all"}']
_ELIMINATED = ["{}", "{a}", "{b,c}", "{a,c,d}"]


@dataclass(frozen=True)
class ProgressSize:
    """How much to generate.

    `progress` rows in all, nearly all of them of active students. `questions` is the mean of a cohort; students
    times questions must leave room for the rows. The first `odd_ids` cohorts but one have odd, valid ids.
    `gaps`: leave the statistics as a neglected system would, instead of none at all.
    """

    schools: int
    cohorts: int
    users: int
    progress: int
    questions: int = 80
    odd_ids: int = 3
    gaps: bool = False


@dataclass(frozen=True)
class ProgressPlan:
    """Who has answered how many of which questions, by position in the small tables."""

    user_ids: pa.Array
    question_ids: pa.Array
    class_ids: pa.Array
    class_of_question: Numbers
    rows_of_user: Numbers
    first_question: Numbers
    questions: Numbers
    start: Numbers
    joined: Numbers

    def chunk(self, rng: np.random.Generator, number: int, chunks: int) -> pa.Table:
        begin = self.rows_of_user * number // chunks
        rows = self.rows_of_user * (number + 1) // chunks - begin
        user = np.repeat(np.arange(len(rows)), rows)
        nth = np.arange(len(user)) - np.repeat(np.cumsum(rows) - rows, rows) + begin[user]
        question = self.first_question[user] + (self.start[user] + nth) % np.maximum(self.questions[user], 1)

        selected = rng.integers(1, len(_SELECTED), len(user)) * (rng.random(len(user)) < 0.85)
        eliminated = rng.integers(1, len(_ELIMINATED), len(user)) * (rng.random(len(user)) < 0.25)
        untouched = (selected == 0) & (eliminated == 0)
        done = (nth + rng.random(len(user))) / np.maximum(self.rows_of_user[user], 1)
        at = self.joined[user] + (done * (_NOW - self.joined[user])).astype(np.int64)
        return pa.table(
            {
                "user_id": self.user_ids.take(pa.array(user)),
                "question_id": self.question_ids.take(pa.array(question)),
                "class_id": self.class_ids.take(pa.array(self.class_of_question[question])),
                "selected_options": pa.array(_SELECTED).take(pa.array(selected)),
                "eliminated_options": pa.array(_ELIMINATED).take(pa.array(eliminated)),
                "is_mastered": pa.array((selected > 0) & (rng.random(len(user)) < 0.55)),
                # A question that was opened and left has no attempt, in half of the cases.
                "last_attempt_at": pa.array(at, mask=untouched & (nth % 2 == 0)).cast(
                    pa.timestamp("s", "UTC")
                ),
            }
        )


def schools(size: ProgressSize) -> pa.Table:
    names = [_numbered(SCHOOLS, number) for number in range(size.schools)]
    return pa.table({"id": _ids("sch", size.schools), "name": names})


def cohorts(rng: np.random.Generator, size: ProgressSize) -> tuple[pa.Table, Numbers]:
    """Cohorts, oldest first, and when each began (seconds). A few have ids that are odd, but valid."""
    ids = _ids("coh", size.cohorts).to_pylist()
    odd = ODD_IDS[: max(min(size.odd_ids, size.cohorts - 1), 0)]
    ids[1 : 1 + len(odd)] = odd
    began = np.sort(rng.integers(_NOW - 3 * 365 * DAY, _NOW - 40 * DAY, size.cohorts))
    names = _cohort_names(began.tolist())
    schools = _ids("sch", size.schools).take(pa.array(rng.integers(0, size.schools, size.cohorts)))
    created = pa.array(began).cast(pa.timestamp("s", "UTC"))
    return pa.table({"id": ids, "school_id": schools, "name": names, "created_at": created}), began


def _cohort_names(began: list[int]) -> list[str]:
    """Subject and term; the second of the same is group 2."""
    names, groups = [], Counter[str]()
    for number, second in enumerate(began):
        date = datetime.fromtimestamp(second, UTC)
        name = f"{SUBJECTS[number % len(SUBJECTS)]}, {TERMS[(date.month - 1) // 3]} {date.year}"
        groups[name] += 1
        names.append(name if groups[name] == 1 else f"{name}, group {groups[name]}")
    return names


@dataclass(frozen=True)
class CourseContent:
    """Classes, modules and questions, the questions of a cohort lying together."""

    tables: dict[str, pa.Table]
    class_of_question: Numbers
    first_question: Numbers
    questions_of_cohort: Numbers


def content(rng: np.random.Generator, size: ProgressSize, cohort_ids: pa.ChunkedArray) -> CourseContent:
    """1 to 6 classes a cohort, of 1 to 7 modules each. A cohort in twenty has classes but no question yet."""

    def children(parents: int, most: int) -> Numbers:
        return np.repeat(np.arange(parents), rng.integers(1, most + 1, parents))

    cohort_of_class = children(size.cohorts, 6)
    class_of_module = children(len(cohort_of_class), 7)
    cohort_of_module = cohort_of_class[class_of_module]
    modules = np.bincount(cohort_of_module, minlength=size.cohorts)
    wanted = size.questions * rng.lognormal(-0.08, 0.4, size.cohorts) / modules
    wanted[np.arange(size.cohorts) % 20 == 9] = 0
    per_module = rng.poisson(wanted[cohort_of_module])
    module_of_question = np.repeat(np.arange(len(class_of_module)), per_module)
    questions = np.bincount(cohort_of_module[module_of_question], minlength=size.cohorts)

    class_ids = _ids("cls", len(cohort_of_class))
    module_ids = _ids("mod", len(class_of_module))
    tables = {
        "classes": pa.table({"id": class_ids, "cohort_id": cohort_ids.take(pa.array(cohort_of_class))}),
        "modules": pa.table({"id": module_ids, "class_id": class_ids.take(pa.array(class_of_module))}),
        "questions": pa.table(
            {
                "id": _ids("que", len(module_of_question)),
                "module_id": module_ids.take(pa.array(module_of_question)),
            }
        ),
    }
    class_of_question = class_of_module[module_of_question]
    return CourseContent(tables, class_of_question, np.cumsum(questions) - questions, questions)


def users(
    rng: np.random.Generator, size: ProgressSize, cohort_ids: pa.ChunkedArray, began: Numbers
) -> tuple[pa.Table, Numbers, Numbers]:
    """Users, the cohort's position of each, and who is deleted. Cohort sizes are skewed; one in fifteen is empty."""
    weight = rng.lognormal(0, 1, size.cohorts)
    weight[np.arange(size.cohorts) % 15 == 7] = 0
    cohort_of_user = rng.choice(size.cohorts, size.users, p=weight / weight.sum())
    is_deleted = rng.random(size.users) < 0.08
    given = pa.array(GIVEN_NAMES).take(pa.array(rng.integers(0, len(GIVEN_NAMES), size.users)))
    surname = pa.array(SURNAMES).take(pa.array(rng.integers(0, len(SURNAMES), size.users)))
    since = began[cohort_of_user]
    deleted_at = since + (rng.random(size.users) * (_NOW - since)).astype(np.int64)
    ids = _ids("usr", size.users)
    users = pa.table(
        {
            "id": ids,
            "cohort_id": cohort_ids.take(pa.array(cohort_of_user)),
            "name": pc.binary_join_element_wise(given, surname, " "),
            "email": pc.binary_join_element_wise(ids, pa.scalar("example.org"), "@"),
            "deleted_at": pa.array(deleted_at, mask=~is_deleted).cast(pa.timestamp("s", "UTC")),
        }
    )
    return users, cohort_of_user, is_deleted


def rows_of_user(rng: np.random.Generator, total: int, questions: Numbers, is_deleted: Numbers) -> Numbers:
    """How many questions each has opened: a fifth none, the others anything up to all; `total` together."""
    if total > questions.sum():
        raise ValueError(
            f"{total:,} progress rows don't fit: students and questions give {questions.sum():,}."
        )
    share = rng.beta(1.1, 1.6, len(questions)) * (rng.random(len(questions)) >= 0.2)
    share = np.where(is_deleted, share * 0.3, share)
    low, high = 0.0, 1.0
    while np.floor(np.minimum(share * high, 1) * questions).sum() < total and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if np.floor(np.minimum(share * middle, 1) * questions).sum() <= total:
            low = middle
        else:
            high = middle
    rows = np.floor(np.minimum(share * low, 1) * questions).astype(np.int64)
    # What is left is a row each for those with the most room, and then whatever room there is.
    while (missing := total - int(rows.sum())) > 0:
        room = np.argsort(rows - questions, kind="stable")[:missing]
        rows[room] += rows[room] < questions[room]
    return rows


def _ids(prefix: str, count: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), 6, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), digits, "_")


def _numbered(names: list[str], number: int) -> str:
    again, position = divmod(number, len(names))
    return names[position] if again == 0 else f"{names[position]} {again + 1}"
