"""Generate realistic rows for the progress domain from a seed.

Random numbers are drawn for whole tables at once. Not here: names (`progress_names`), loading (`progress`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dagster_backfills.samples.progress_names import GIVEN_NAMES, ODD_IDS, SCHOOLS, SUBJECTS, SURNAMES, TERMS

Numbers = np.ndarray[Any, Any]


_NOW = int(datetime(2025, 9, 1, tzinfo=UTC).timestamp())
_DAY = 86_400
_CHUNK_ROWS = 100_000
# Selected and eliminated options, as Postgres arrays. An untouched question has neither.
_SELECTED = ["{}", "{a}", "{b}", "{c}", "{d}", "{a,c}", "{b,d}", '{"none of these, or all"}']
_ELIMINATED = ["{}", "{a}", "{b,c}", "{a,c,d}"]


@dataclass(frozen=True)
class ProgressSize:
    """How much to generate.

    progress: the total number of progress rows, nearly all of active students.
    questions: mean number of questions per cohort. Students times questions must exceed `progress`.
    odd_ids: how many cohorts, from the second on, have unusual but valid IDs.
    gaps: leave incomplete statistics, instead of none.
    """

    schools: int
    cohorts: int
    users: int
    progress: int
    questions: int = 80
    odd_ids: int = 3
    gaps: bool = False


@dataclass(frozen=True)
class ProgressData:
    """Generated rows: `tables` has the small tables by name. The arrays define the progress rows, by position."""

    seed: int
    tables: dict[str, pa.Table]
    class_of_question: Numbers
    rows_of_user: Numbers
    first_question: Numbers
    questions: Numbers
    start: Numbers
    joined: Numbers

    def progress_chunks(self) -> Iterator[pa.Table]:
        """The progress rows, earlier attempts first, so that a student's rows are scattered over the table.

        Columns are those of `progress.user_progress`. Options are Postgres array literals.
        """
        chunks = max(1, -(-int(self.rows_of_user.sum()) // _CHUNK_ROWS))
        rng = np.random.default_rng([self.seed, 2])
        for number in range(chunks):
            yield self._chunk(rng, number, chunks)

    def _chunk(self, rng: np.random.Generator, number: int, chunks: int) -> pa.Table:
        ids = {name: table["id"].combine_chunks() for name, table in self.tables.items()}
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
                "user_id": ids["users"].take(pa.array(user)),
                "question_id": ids["questions"].take(pa.array(question)),
                "class_id": ids["classes"].take(pa.array(self.class_of_question[question])),
                "selected_options": pa.array(_SELECTED).take(pa.array(selected)),
                "eliminated_options": pa.array(_ELIMINATED).take(pa.array(eliminated)),
                "is_mastered": pa.array((selected > 0) & (rng.random(len(user)) < 0.55)),
                # Half of the untouched questions have no attempt.
                "last_attempt_at": pa.array(at, mask=untouched & (nth % 2 == 0)).cast(
                    pa.timestamp("s", "UTC")
                ),
            }
        )


def generate_progress(size: ProgressSize, seed: int) -> ProgressData:
    """Generate rows, which depend only on size and seed. Raises ValueError if `size.progress` is too large."""
    rng = np.random.default_rng([seed, 1])
    cohorts, started = _cohorts(rng, size)
    content, class_of_question, questions_of_cohort = _content(rng, size, cohorts["id"])
    users, cohort_of_user, is_deleted = _users(rng, size, cohorts["id"], started)
    names = [_numbered(SCHOOLS, number) for number in range(size.schools)]
    schools = pa.table({"id": _ids("sch", size.schools), "name": names})
    questions = questions_of_cohort[cohort_of_user]
    return ProgressData(
        seed,
        # In this order, so that the triggers on users find the questions.
        {"schools": schools, "cohorts": cohorts, **content, "users": users},
        class_of_question,
        _rows_of_user(rng, size.progress, questions, is_deleted),
        first_question=(np.cumsum(questions_of_cohort) - questions_of_cohort)[cohort_of_user],
        questions=questions,
        # Four in five start with the first question.
        start=rng.integers(0, np.maximum(questions, 1)) * (rng.random(size.users) < 0.2),
        joined=started[cohort_of_user] + rng.integers(0, 30 * _DAY, size.users),
    )


def _cohorts(rng: np.random.Generator, size: ProgressSize) -> tuple[pa.Table, Numbers]:
    """Cohorts, oldest first, and the start of each in seconds. A few have unusual but valid IDs."""
    ids = _ids("coh", size.cohorts).to_pylist()
    odd = ODD_IDS[: max(min(size.odd_ids, size.cohorts - 1), 0)]
    ids[1 : 1 + len(odd)] = odd
    started = np.sort(rng.integers(_NOW - 3 * 365 * _DAY, _NOW - 40 * _DAY, size.cohorts))
    names = _cohort_names(started.tolist())
    schools = _ids("sch", size.schools).take(pa.array(rng.integers(0, size.schools, size.cohorts)))
    created = pa.array(started).cast(pa.timestamp("s", "UTC"))
    return pa.table({"id": ids, "school_id": schools, "name": names, "created_at": created}), started


def _cohort_names(started: list[int]) -> list[str]:
    """Subject and term; a second cohort with the same name becomes group 2."""
    names, groups = [], Counter[str]()
    for number, second in enumerate(started):
        date = datetime.fromtimestamp(second, UTC)
        name = f"{SUBJECTS[number % len(SUBJECTS)]}, {TERMS[(date.month - 1) // 3]} {date.year}"
        groups[name] += 1
        names.append(name if groups[name] == 1 else f"{name}, group {groups[name]}")
    return names


def _content(
    rng: np.random.Generator, size: ProgressSize, cohort_ids: pa.ChunkedArray
) -> tuple[dict[str, pa.Table], Numbers, Numbers]:
    """Classes, modules and questions, each question's class, and the number of questions per cohort.

    A cohort has 1 to 6 classes with 1 to 7 modules each. One cohort in twenty has classes but no questions.
    """

    def children(parents: int, maximum: int) -> Numbers:
        return np.repeat(np.arange(parents), rng.integers(1, maximum + 1, parents))

    cohort_of_class = children(size.cohorts, 6)
    class_of_module = children(len(cohort_of_class), 7)
    cohort_of_module = cohort_of_class[class_of_module]
    modules = np.bincount(cohort_of_module, minlength=size.cohorts)
    mean = size.questions * rng.lognormal(-0.08, 0.4, size.cohorts) / modules
    mean[np.arange(size.cohorts) % 20 == 9] = 0
    per_module = rng.poisson(mean[cohort_of_module])
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
    return tables, class_of_module[module_of_question], questions


def _users(
    rng: np.random.Generator, size: ProgressSize, cohort_ids: pa.ChunkedArray, started: Numbers
) -> tuple[pa.Table, Numbers, Numbers]:
    """Users, the position of each one's cohort, and who is deleted. Cohort sizes are skewed; one in 15 is empty."""
    weight = rng.lognormal(0, 1, size.cohorts)
    weight[np.arange(size.cohorts) % 15 == 7] = 0
    cohort_of_user = rng.choice(size.cohorts, size.users, p=weight / weight.sum())
    is_deleted = rng.random(size.users) < 0.08
    given = pa.array(GIVEN_NAMES).take(pa.array(rng.integers(0, len(GIVEN_NAMES), size.users)))
    surname = pa.array(SURNAMES).take(pa.array(rng.integers(0, len(SURNAMES), size.users)))
    since = started[cohort_of_user]
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


def _rows_of_user(rng: np.random.Generator, total: int, questions: Numbers, is_deleted: Numbers) -> Numbers:
    """How many questions each user has opened, `total` together: a fifth of the users none, the others up to all."""
    if total > questions.sum():
        raise ValueError(
            f"{total:,} progress rows don't fit: students times questions is {questions.sum():,}."
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
    # Distribute the remainder, starting with the users who have the most unopened questions.
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
