"""What a run says of its progress while it works."""

from dagster_backfills.dagster.report import ProgressLog
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByValue
from dagster_backfills_tests.engine.running import by_unit, fill, opened


def test_progress_goes_by_units_where_partitions_differ_in_size(conn, database_url):
    """The first of three partitions has nine units of eleven: with it written, 81 % are done, not 33 %."""
    fill(conn, 3, 1)
    conn.execute("insert into t.source select 'p001', 'u' || n, n from generate_series(1, 8) as n")
    settings = EngineSettings(target_seconds=0, batch_units=1, min_batch_units=1)
    runner = Runner(lambda: opened(database_url), RunIdentity("run"), settings)
    progress, lines = ProgressLog(3, lambda line: None), []
    addresses = {"t/units": ByValue("part", "text")}
    for finished in runner.run([by_unit], addresses, ["p001", "p002", "p003"]):
        progress.step(len(finished), runner)
        lines.append(progress.line(runner))
    assert [line.split(",")[0] for line in lines] == [
        "1 of 3 partitions (81 %)",
        "2 of 3 partitions (90 %)",
        "3 of 3 partitions (100 %)",
    ]
