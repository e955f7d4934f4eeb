"""Enqueueing: unique keys, inputs and chains. Anything that could stop a worker is rejected."""

import json
import threading

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType
from dagster_backfills.domains.queue.queue import Owner, Step
from dagster_backfills.domains.queue.registry import background_job_types, fields_of

AUDIO = {"audio_url": "file:///a.wav"}


def _row(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def test_a_unique_key_under_concurrent_enqueues_makes_one_job(jobs_db, registry):
    ids, start = [], threading.Barrier(8)

    def put():
        with psycopg.connect(jobs_db, autocommit=True) as conn:
            start.wait()
            ids.extend(queue.enqueue(conn, "noop", unique_key=f"k{n}", registry=registry) for n in range(20))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ids) == 160 and len(set(ids)) == 20
    with psycopg.connect(jobs_db) as conn:
        assert conn.execute("select count(*) from jobs.background_jobs").fetchone() == (20,)
        assert conn.execute("select count(*) from jobs.job_queue").fetchone() == (20,)


@pytest.mark.parametrize("end", ["pending", "processing", "completed", "failed"])
def test_a_unique_key_returns_its_job_also_after_it_has_ended(db, registry, end):
    first = queue.enqueue(db, "noop", unique_key="k", registry=registry)
    if end != "pending":
        job = queue.claim(db, "w", 1)[0]
        if end == "completed":
            queue.complete(db, [(job, None)])
        if end == "failed":
            queue.fail(db, job, "x", "x", "", False)
    assert _row(db, first)["status"] == end
    assert queue.enqueue(db, "noop", unique_key="k", registry=registry) == first
    assert queue.enqueue(db, "echo", unique_key="k", registry=registry) != first


def test_a_cancelled_job_frees_its_unique_key(db, registry):
    first = queue.enqueue(db, "noop", unique_key="k", registry=registry)
    queue.cancel(db, first)
    second = queue.enqueue(db, "noop", unique_key="k", registry=registry)
    assert second != first and [j.id for j in queue.claim(db, "w", 5)] == [second]


def test_an_unknown_type_is_refused_with_the_types_there_are(db, registry):
    with pytest.raises(UnknownJobType, match=r"Unknown job type: nope.*noop"):
        queue.enqueue(db, "nope", registry=registry)
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match=r"Unknown job type: nope \(known: .*transcription"
    ):
        db.execute("select jobs.enqueue_background_job('nope')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Unknown job type: nope"):
        db.execute("select jobs.enqueue_background_jobs('nope', '{}')")


@pytest.mark.parametrize(
    ("job_type", "input_data", "message"),
    [
        ("transcription", {}, "field audio_url"),
        ("transcription", {"audio_url": 7}, "field audio_url"),
        ("transcription", {"audio_url": "file:///a.wav", "speed": 2}, "field speed"),
        ("sop_generation", {"title": "t", "transcript": "x"}, "field duration"),
        ("mux_upload", {"video_url": None}, "field video_url"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_naming_the_field_in_python_and_in_sql(
    db, job_type, input_data, message
):
    with pytest.raises(InvalidJobInput, match=message):
        queue.enqueue(db, job_type, input_data)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{job_type}: {message}"):
        db.execute(
            "select jobs.enqueue_background_job(%s, %s)", [job_type, psycopg.types.json.Jsonb(input_data)]
        )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        db.execute(
            "select jobs.enqueue_background_jobs(%s, %s)", [job_type, [psycopg.types.json.Jsonb(input_data)]]
        )
    assert db.execute("select count(*) from jobs.background_jobs").fetchone() == (0,)


def test_a_value_that_only_the_model_refuses_is_refused_too(db):
    with pytest.raises(InvalidJobInput, match="field duration"):
        queue.enqueue(db, "sop_generation", {"title": "t", "transcript": "x", "duration": -1})


def test_the_database_knows_the_same_fields_as_the_models(db):
    query = "select t.* from jobs.job_types as t where job_type = %s"
    for kind in background_job_types({}):
        found = db.cursor(row_factory=dict_row).execute(query, [kind.name]).fetchone()
        expected = fields_of(kind)
        assert sorted(found.pop("output_fields")) == sorted(expected.pop("output_fields"))
        assert found == expected


def test_a_priority_out_of_range_is_refused(db, registry):
    with pytest.raises(InvalidJobInput, match="priority must be 1 to 10, not 11"):
        queue.enqueue(db, "noop", priority=11, registry=registry)


def test_a_chain_starts_each_step_when_the_one_before_completes(db):
    owner = Owner(user_id="mem_1", company_id="org_1", training_id="tr_1")
    steps = [
        Step("sop_generation", {"title": "Fire drill"}, priority=2),
        Step("mux_upload", {"video_url": "https://media.example/a.mp4"}),
    ]
    first = queue.enqueue(db, "transcription", {"audio_url": "file:///a.wav"}, owner=owner, then=steps)
    heard = {
        "transcript": "Open the door.",
        "segments": [],
        "duration": 12.5,
        "language": "en",
        "engine": "x",
    }
    queue.complete(db, [(queue.claim(db, "w", 5)[0], heard)])
    [second] = queue.claim(db, "w", 5)
    assert (second.job_type, second.priority) == ("sop_generation", 2)
    assert second.input_data == {
        "title": "Fire drill", "transcript": "Open the door.", "duration": 12.5, "segments": []
    }  # fmt: skip
    row = _row(db, second.id)
    assert (row["parent_id"], row["user_id"], row["company_id"], row["training_id"]) == (
        first, "mem_1", "org_1", "tr_1"
    )  # fmt: skip
    queue.complete(db, [(second, {"title": "Fire drill"})])
    [third] = queue.claim(db, "w", 5)
    assert third.input_data == {"video_url": "https://media.example/a.mp4"}
    assert (third.job_type, _row(db, third.id)["parent_id"]) == ("mux_upload", second.id)
    queue.complete(db, [(third, {})])
    assert queue.claim(db, "w", 5) == []


def test_a_step_that_starts_is_announced(jobs_db, db):
    queue.enqueue(db, "transcription", AUDIO, then=[Step("mux_upload", {"video_url": "https://a.test/b"})])
    [first] = queue.claim(db, "w", 1)
    with psycopg.connect(jobs_db, autocommit=True) as listener:
        listener.execute("listen jobs_changed")
        queue.complete(db, [(first, {})])
        [second] = queue.claim(db, "w", 1)
        heard = [json.loads(notice.payload) for notice in listener.notifies(timeout=5, stop_after=2)]
    assert heard[:2] == [
        {"id": str(second.id), "status": "pending"},
        {"id": str(first.id), "status": "completed"},
    ]


def test_a_chain_stops_where_a_step_fails_or_is_cancelled(db):
    step = [Step("sop_generation", {"title": "t"})]
    for end in ("fail", "cancel"):
        job_id = queue.enqueue(db, "transcription", {"audio_url": "file:///a.wav"}, then=step)
        job = queue.claim(db, "w", 1)[0]
        queue.fail(db, job, "x", "x", "", False) if end == "fail" else queue.cancel(db, job_id)
    assert db.execute("select count(*) from jobs.background_jobs").fetchone() == (2,)


def test_a_chain_that_can_not_work_is_refused_at_once(db):
    audio = {"audio_url": "file:///a.wav"}
    with pytest.raises(
        InvalidJobInput, match=r"sop_generation \(a step of transcription\): field title is required"
    ):
        queue.enqueue(db, "transcription", audio, then=[Step("sop_generation", {})])
    with pytest.raises(UnknownJobType, match="Unknown job type: nope"):
        queue.enqueue(db, "transcription", audio, then=[Step("nope", {})])
    assert db.execute("select count(*) from jobs.background_jobs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("mux_upload", "a step must be a JSON object"),
        ({"input_data": {}}, r"Unknown job type: null \(known: "),
        ({"job_type": 5}, "Unknown job type: 5"),
        ({"job_type": "mux_upload", "input_data": ["x"]}, "input_data must be a JSON object"),
        ({"job_type": "mux_upload", "input_data": None}, "input_data must be a JSON object"),
        ({"job_type": "mux_upload", "input_data": {"video_url": 7}}, "field video_url must be a string"),
        ({"job_type": "mux_upload", "input_data": {"video_url": None}}, "field video_url is required"),
        ({"job_type": "mux_upload", "input_data": {"video_url": "x", "a": 1}}, "field a is not known"),
        ({"job_type": "mux_upload", "max_retries": -1}, "max_retries must be 0 or more"),
        ({"job_type": "mux_upload", "max_retries": 1.5}, "max_retries must be 0 or more"),
        ({"job_type": "mux_upload", "max_retries": [1]}, "max_retries must be 0 or more"),
        ({"job_type": "mux_upload", "priority": 11}, "priority must be 1 to 10"),
        ({"job_type": "mux_upload", "run_after": "now"}, "a step has no run_after"),
    ],
)
def test_a_step_that_could_never_run_is_rejected_when_enqueued(db, step, message):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        db.execute(
            "select jobs.enqueue_background_job('transcription', %s, then_steps => %s)",
            [Jsonb(AUDIO), Jsonb([step])],
        )
    assert db.execute("select count(*) from jobs.background_jobs").fetchone() == (0,)


def test_a_second_step_is_validated_against_the_output_of_the_first(db):
    first = Step("sop_generation", {"title": "Fire drill"})
    with pytest.raises(
        InvalidJobInput, match=r"mux_upload \(a step of transcription\): field video_url is required"
    ):
        queue.enqueue(db, "transcription", AUDIO, then=[first, Step("mux_upload", {})])
    second = Step("mux_upload", {"video_url": "https://media.example/a.mp4"}, max_retries=0)
    job_id = queue.enqueue(db, "transcription", AUDIO, then=[first, second])
    assert _row(db, job_id)["then_steps"][1]["max_retries"] == 0


def test_a_step_with_a_value_that_only_the_model_refuses_is_refused_too(db):
    step = Step("sop_generation", {"title": "t", "duration": -1})
    with pytest.raises(
        InvalidJobInput, match="sop_generation: field duration: input should be greater than 0"
    ):
        queue.enqueue(db, "transcription", AUDIO, then=[step])


_DEEP = "[" * 3000 + "]" * 3000
_UNREADABLE = [
    ('{"title": "a", "transcript": "b", "duration": 1e5000}', "field duration holds a number beyond 1.7e308"),
    ('{"title": "a", "transcript": "b", "duration": -1e309}', "field duration holds a number beyond 1.7e308"),
    (
        '{"title": "a", "transcript": "b", "duration": 5, "segments": ' + _DEEP + "}",
        "field segments is nested more",
    ),
    (
        '{"title": "a", "transcript": "b", "duration": 5, "segments": [[1e400]]}',
        "field segments holds a number",
    ),
]


@pytest.mark.parametrize(("text", "message"), _UNREADABLE)
@pytest.mark.parametrize(
    "call",
    [
        "enqueue_background_job('sop_generation', %s)",
        "enqueue_background_jobs('sop_generation', array[%s::jsonb])",
    ],
)
def test_json_beyond_common_limits_is_rejected_naming_the_field(db, text, message, call):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"sop_generation: {message}"):
        db.execute("select jobs." + call, [text])


def test_json_beyond_common_limits_is_rejected_for_untyped_inputs_and_steps(db, registry):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="echo: field a holds a number"):
        db.execute("""select jobs.enqueue_background_job('echo', '{"a": 1e400}')""")
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match=r"echo \(a step of noop\): field a is nested"
    ):
        db.execute(
            "select jobs.enqueue_background_job('noop', then_steps => %s)",
            ['[{"job_type": "echo", "input_data": {"a": ' + _DEEP + "}}]"],
        )


def test_values_that_json_can_not_represent_are_rejected_in_python(db, registry):
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    for value in (float("nan"), "nul \0 byte", object(), deep):
        with pytest.raises(InvalidJobInput):
            queue.enqueue(db, "echo", {"a": value}, registry=registry)


@pytest.mark.parametrize(
    "call", ["enqueue_background_job('noop', ", "enqueue_background_jobs('noop', '{}', "]
)
def test_invalid_retries_and_priorities_are_rejected_with_a_message(db, call):
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="noop: max_retries must be 0 or more, not -1"
    ):
        db.execute(f"select jobs.{call} max_retries => -1)")
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="noop: priority must be 1 to 10, not null"
    ):
        db.execute(f"select jobs.{call} priority => null)")


def test_run_after_minus_infinity_means_now(db, registry):
    job_id = db.execute("select jobs.enqueue_background_job('noop', run_after => '-infinity')").fetchone()[0]
    assert _row(db, job_id)["run_after"] is None
    [noop] = [m for m in queue.rows(db, "metrics") if m["job_type"] == "noop"]
    assert noop["waiting"] == 1 and 0 <= noop["oldest_waiting_seconds"] < 600
