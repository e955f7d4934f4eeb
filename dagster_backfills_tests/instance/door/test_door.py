"""Authentication, the user's tags on runs, and authorization by domain."""

import json
from typing import Any

import pytest
from dagster._core.execution.backfill import BulkActionStatus
from starlette.websockets import WebSocketDisconnect

from dagster_backfills_tests.instance.door.asking import (
    BACKFILL,
    LAUNCH,
    REPOSITORY_SELECTOR,
    backfill_of,
    run_of,
)
from dagster_backfills_tests.instance.door.conftest import Served, headers

pytestmark = pytest.mark.e2e

TRAINING, PROGRESS = "training/completions", "progress/stats"
AGAIN = """mutation($again: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $again) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
BACKFILL_AGAIN = """mutation($again: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $again) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""


def launch(served: Served, who: str, groups: str = "", **run: Any) -> str:
    """Launches a job. Returns the run's ID, or an empty text if it is refused."""
    answer = served.ask(who, LAUNCH, groups, run=run_of(**run))
    assert answer.refused or answer.data["launchRun"]["__typename"] == "LaunchRunSuccess", answer
    return "" if answer.refused else str(answer.data["launchRun"]["run"]["runId"])


# ---- who


FORGED: list[dict[str, str]] = [
    {},
    {"X-Forwarded-User": "olga"},
    {"X-Forwarded-User": "olga", "X-Proxy-Secret": "guessed"},
    {"X-Forwarded-User": "olga", "X-Proxy-Secret": ""},
    {"X-Proxy-Secret": "what only the proxy knows"},
    {"X-Forwarded-Groups": "trainers"},
]


@pytest.mark.parametrize("given", FORGED)
@pytest.mark.parametrize("path", ["/graphql", "/", "/runs", "/logs/x", "/report_asset_materialization/a"])
def test_a_request_that_does_not_come_from_the_proxy_is_refused(
    served: Served, given: dict[str, str], path: str
) -> None:
    before = served.launched(), len(served.rows())
    for answer in (served.client.get(path, headers=given), served.client.post(path, json={}, headers=given)):
        assert answer.status_code == 403
        assert "proxy" in answer.json()["error"]
    assert (served.launched(), len(served.rows())) == before


def test_a_probe_may_ask_for_the_version_and_no_more(served: Served) -> None:
    assert served.client.get("/server_info").status_code == 200
    assert served.client.get("/server_info/x").status_code == 403


def test_an_unauthenticated_websocket_is_closed(served: Served) -> None:
    with pytest.raises(WebSocketDisconnect), served.client.websocket_connect("/graphql", ["graphql-ws"]):
        pass


def test_a_websocket_takes_no_mutation(served: Served) -> None:
    before = served.launched()
    payload = {"query": LAUNCH, "variables": {"run": run_of("refresh_training")}}
    with served.client.websocket_connect("/graphql", ["graphql-ws"], headers=headers("olga")) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json()["type"] == "connection_ack"
        socket.send_json({"type": "start", "id": "1", "payload": payload})
        assert socket.receive_json()["type"] == "error"
    assert served.launched() == before


def test_a_user_with_the_right_view_sees_the_pages(served: Served) -> None:
    assert served.client.get("/runs", headers=headers("vera")).status_code == 200
    assert served.ask("vera", "{ instance { id } }").data["instance"]["id"]


# ---- what carries the name


def test_a_run_has_the_tags_of_the_user_who_launched_it_whatever_the_request_says(served: Served) -> None:
    run_id = launch(served, "olga", job="refresh_training", dagster__user="vera", user="vera", mine="kept")
    tags = served.instance.get_run_by_id(run_id).tags  # type: ignore[union-attr]
    assert (tags["dagster/user"], tags["user"], tags["mine"]) == ("olga", "olga", "kept")
    started, done = served.rows()[-2:]
    assert (started["outcome"], done["outcome"], done["detail"]) == ("started", "done", "LaunchRunSuccess")
    assert (done["who"], done["action"], done["target"]) == ("olga", "launchRun", "refresh_training")
    assert (done["domains"], done["runs"]) == (["training"], [run_id])
    assert started["request"] == done["request"]


def test_a_backfill_has_the_tags_of_the_user_who_launched_it(served: Served) -> None:
    answer = served.ask("olga", BACKFILL, backfill=backfill_of(TRAINING, dagster__user="vera"))
    backfill_id = answer.data["launchPartitionBackfill"]["backfillId"]
    tags = served.instance.get_backfill(backfill_id).tags  # type: ignore[union-attr]
    assert tags["dagster/user"] == "olga"
    assert served.rows()[-1]["runs"] == [backfill_id]


def test_a_reexecuted_run_has_the_tags_of_the_user_who_reexecutes_it(served: Served) -> None:
    run_id = launch(served, "olga", job="refresh_training")
    again = {"parentRunId": run_id, "strategy": "ALL_STEPS", "useParentRunTags": True}
    answer = served.ask("tina", AGAIN, "trainers", again=again)
    tags = served.instance.get_run_by_id(answer.data["launchRunReexecution"]["run"]["runId"]).tags  # type: ignore[union-attr]
    assert tags["dagster/user"] == "tina"


def test_a_reexecuted_backfill_has_the_tags_of_the_user_who_reexecutes_it(served: Served) -> None:
    first = served.ask("olga", BACKFILL, backfill=backfill_of(TRAINING)).data["launchPartitionBackfill"]
    backfill = served.instance.get_backfill(first["backfillId"])
    assert backfill is not None
    served.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_FAILED))
    again = {"parentRunId": first["backfillId"], "strategy": "ALL_STEPS"}
    assert served.ask("tina", BACKFILL_AGAIN, "others", again=again).refused
    result = served.ask("tina", BACKFILL_AGAIN, "trainers", again=again).data["reexecutePartitionBackfill"]
    repeated = served.instance.get_backfill(result["backfillId"])
    assert repeated is not None and repeated.tags is not None
    assert repeated.tags["dagster/user"] == "tina"


def test_an_error_response_is_recorded_as_failed(served: Served) -> None:
    answer = served.ask("olga", LAUNCH, run=run_of("refresh_training", config={"ops": {"none": {}}}))
    assert answer.data["launchRun"]["__typename"] == "RunConfigValidationInvalid"
    assert served.rows()[-1]["outcome"] == "failed"
    assert served.rows()[-1]["runs"] == []


def test_nothing_is_launched_if_it_can_not_be_recorded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = served.launched()
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/none")
    assert served.ask("olga", LAUNCH, run=run_of("refresh_training")).errors
    assert served.launched() == before


# ---- which domain


@pytest.mark.parametrize(
    ("groups", "run", "let_in"),
    [
        ("trainers", {"job": "refresh_training"}, True),
        ("others, trainers", {"job": "__ASSET_JOB", "assets": (TRAINING,)}, True),
        ("", {"job": "refresh_training"}, False),
        ("trainers", {"job": "__ASSET_JOB", "assets": (PROGRESS,)}, False),
        ("trainers", {"job": "__ASSET_JOB", "assets": (TRAINING, PROGRESS)}, False),
        ("trainers", {"job": "__ASSET_JOB"}, False),
        ("trainers", {"job": "fill_stats"}, False),
        ("trainers", {"job": "nobodys"}, False),
        ("trainers", {"job": "nobodys", "backfills__domain": "training"}, False),
    ],
)
def test_launching_needs_the_right_in_the_domains_of_the_job_and_its_assets(
    served: Served, groups: str, run: dict[str, Any], let_in: bool
) -> None:
    before = served.launched()
    assert bool(launch(served, "tina", groups, **run)) == let_in
    assert served.launched() == before + let_in


def test_a_backfill_needs_it_in_the_domains_of_its_assets(served: Served) -> None:
    assert not served.ask("tina", BACKFILL, "trainers", backfill=backfill_of(TRAINING)).refused
    assert served.ask("tina", BACKFILL, "trainers", backfill=backfill_of(TRAINING, PROGRESS)).refused
    by_set = {"repositorySelector": REPOSITORY_SELECTOR, "partitionSetName": "fill_stats_partition_set"}
    backfill = {**backfill_of(TRAINING), "selector": by_set}
    assert served.ask("tina", BACKFILL, "trainers", backfill=backfill).refused


def test_ending_or_repeating_a_run_needs_it_in_the_domains_of_that_run(served: Served) -> None:
    terminate = "mutation($id: String!) { terminateRun(runId: $id) { __typename ... on Error { message } } }"
    of_training = launch(served, "olga", job="refresh_training")
    of_progress = launch(served, "olga", job="__ASSET_JOB", assets=(PROGRESS,))
    assert served.ask("tina", terminate, "trainers", id=of_progress).refused
    assert not served.ask("tina", terminate, "trainers", id=of_training).refused
    again = {"parentRunId": of_progress, "strategy": "ALL_STEPS"}
    assert served.ask("tina", AGAIN, "trainers", again=again).refused


def test_launching_an_undo_job_needs_the_right_to_undo_in_its_domain(served: Served) -> None:
    assert served.ask("tina", LAUNCH, "trainers", run=run_of("undo_training")).refused
    assert not served.ask("tina", LAUNCH, "menders", run=run_of("undo_training")).refused


# ---- how it is asked


def test_each_mutation_of_a_document_is_authorized_whatever_its_alias(served: Served) -> None:
    before = served.launched()
    query = """
      mutation Other { setNuxSeen }
      mutation Both($mine: ExecutionParams!, $not: ExecutionParams!) { ...All }
      fragment All on Mutation {
        logTelemetry: launchRun(executionParams: $not) { __typename ... on Error { message } }
        setNuxSeen: launchRun(executionParams: $mine) { __typename ... on Error { message } } }"""
    answer = served.ask(
        "tina",
        query,
        "trainers",
        "Both",
        mine=run_of("refresh_training"),
        **{"not": run_of("nobodys")},
    )
    assert answer.data["logTelemetry"]["__typename"] == "UnauthorizedError"
    assert answer.data["setNuxSeen"]["__typename"] == "LaunchRunSuccess"
    assert served.launched() == before + 1


def test_batched_documents_execute_nothing(served: Served) -> None:
    before = served.launched()
    body = [{"query": LAUNCH, "variables": {"run": run_of("refresh_training")}}]
    with pytest.raises(AttributeError):  # Dagster does not support batches
        served.client.post("/graphql", json=body, headers=headers("olga"))
    assert served.launched() == before


@pytest.mark.parametrize(
    "kind", ["link", "text/plain; application/json", "application/x-www-form-urlencoded"]
)
def test_a_mutation_in_a_link_or_a_form_is_refused(served: Served, kind: str) -> None:
    before = served.launched()
    body = {"query": LAUNCH, "variables": json.dumps({"run": run_of("refresh_training")})}
    if kind == "link":
        answer = served.client.get("/graphql", params=body, headers=headers("olga"))
    else:
        given = {**headers("olga"), "Content-Type": kind}
        answer = served.client.post("/graphql", params=body, content=json.dumps(body), headers=given)
    assert answer.json()["data"]["launchRun"]["__typename"] == "UnauthorizedError"
    assert served.launched() == before


def test_external_asset_reports_need_the_right_in_all_domains(served: Served) -> None:
    path = f"/report_asset_materialization/{TRAINING}"
    assert served.client.post(path, json={}, headers=headers("tina", "trainers")).status_code == 403
    assert served.client.post(path, json={}, headers=headers("lena")).status_code == 200
    assert [(r["who"], r["action"], r["outcome"]) for r in served.rows()[-3:]] == [
        ("tina", "report_asset_materialization", "refused"),
        ("lena", "report_asset_materialization", "started"),
        ("lena", "report_asset_materialization", "done"),
    ]
