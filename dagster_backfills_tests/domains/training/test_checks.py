"""The checks right after a first fill, when nothing has analyzed the table yet."""

from pathlib import Path

import pytest

import dagster_backfills.defs.training as training_folder
from dagster_backfills.postgres.statements import load_statements

CHECKS = load_statements(Path(training_folder.__path__[0]) / "checks.sql")
BINDS = {"assets": ["training/employee_training_video_completions"], "seconds": 600}
FILL = """
alter table training.employee_training_video_completions set (autovacuum_enabled = false);
insert into training.organizations (id, name) select 'o' || n, 'O' from generate_series(1, 300) as n;
insert into training.members (id, organization_id, user_email)
select 'm' || n, 'o' || 1 + n % 300, 'e' from generate_series(1, 30000) as n;
analyze training.organizations, training.members;
insert into training.employee_training_video_completions (organization_id, member_id, video_id)
select m.organization_id, m.id, v.id from training.members as m cross join training.training_videos as v;
"""


@pytest.fixture
def filled(training):
    training.conn.execute(FILL)
    return training.conn


def test_records_are_counted_by_index_before_anything_has_analyzed_them(filled):
    for name in ("organizations_lacking_records", "wrong_progress"):
        nodes, todo = (
            [],
            [filled.execute(f"explain (format json) {CHECKS[name]}", BINDS).fetchone()[0][0]["Plan"]],
        )
        while todo:
            node = todo.pop()
            todo += node.get("Plans", [])
            if node.get("Relation Name") == "employee_training_video_completions":
                nodes.append(node["Node Type"])
        assert nodes, name
        assert "Seq Scan" not in nodes, name
