"""The Open University Learning Analytics data as training data, and the demo's sample.

Kuzilek, Hlosta, Zdrahal: Open University Learning Analytics dataset, Scientific Data 4:170171 (2017), CC BY 4.0.
It is not part of this repository. `OULAD_DIR` names the folder of its gzipped CSV files. The default is
`../shared/data/oulad`, next to the checkout. Organization: presentation of a course. Member: registration,
deactivated if withdrawn. Video: type of assessment, completed if the registration submitted one of that type.
"""

import csv
import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from dagster_backfills.samples.training import generate_training, load_demo

_COURSES, _REGISTRATIONS = "courses.csv.gz", "studentRegistration.csv.gz"


@pytest.fixture
def oulad(project_root: Path) -> Path:
    folder = Path(os.environ.get("OULAD_DIR") or project_root.parent / "shared" / "data" / "oulad")
    if not (folder / _REGISTRATIONS).is_file():
        pytest.skip(
            f"The Open University's data is not in {folder}; set OULAD_DIR to the folder that has it."
        )
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_every_registration_of_22_real_presentations_gets_its_records(training, oulad):
    courses, registrations = _rows(oulad / _COURSES), _rows(oulad / _REGISTRATIONS)
    members = [
        (f"{r['code_module']}/{r['code_presentation']}/{r['id_student']}",
         f"{r['code_module']}/{r['code_presentation']}", "x", r["date_unregistration"] not in ("", "?"))
        for r in registrations
    ]  # fmt: skip
    cursor = training.conn.cursor()
    with cursor.copy("copy training.organizations (id, name) from stdin") as copy:
        for course in courses:
            copy.write_row((f"{course['code_module']}/{course['code_presentation']}", course["code_module"]))
    with cursor.copy(
        "copy training.members (id, organization_id, user_email, deactivated) from stdin"
    ) as copy:
        for member in members:
            copy.write_row(member)
    active = Counter(organization for _, organization, _, deactivated in members if not deactivated)
    assert (len(courses), len(members), active.total()) == (22, 32_593, 22_521)

    assert training.fill().success
    found = training.rows(
        "select organization_id, members, records from training.organization_training_progress"
    )
    assert {organization: (count, 3 * count) for organization, count in active.items()} == {
        organization: (count, records) for organization, count, records in found
    }
    assert all(each.passed for each in training.check().values())


def test_the_sample_has_gaps_of_every_kind_and_a_run_closes_them(training):
    training.conn.execute("delete from training.training_videos")
    assert load_demo(training.conn).startswith("Loaded 60 organizations")
    assert "no sample data was loaded" in load_demo(training.conn)
    [(organizations, empty, never, partly, completed, deactivated)] = training.rows(
        "select count(*), count(*) filter (where members = 0), count(*) filter (where members > 0 and records = 0),"
        " count(*) filter (where records between 1 and expected - 1), sum(completed),"
        " (select count(*) from training.members where deactivated) from training.organization_status"
    )
    assert organizations == 60
    assert min(empty, never, partly, completed, deactivated) > 0
    assert training.fill().success
    assert training.rows("select sum(missing), sum(completed) from training.organization_status") == [
        (0, completed)
    ]
    assert all(each.passed for each in training.check().values())


def test_the_sample_is_the_same_for_the_same_seed_and_skewed():
    first, second = generate_training(seed=7), generate_training(seed=7)
    assert first == second
    assert first != generate_training(seed=8)
    sizes = sorted(Counter(member[1] for member in first["members"]).values())
    assert sizes[-1] > 10 * sizes[len(sizes) // 2]
