"""Mutations like the UI's, and one of each kind generated from the schema."""

from typing import Any

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    get_named_type,
    is_composite_type,
    is_enum_type,
)

from dagster_backfills_tests.instance.door.conftest import LOCATION, REPOSITORY

LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
BACKFILL = """mutation($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
REPOSITORY_SELECTOR = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION}


def run_of(job: str, assets: tuple[str, ...] = (), config: Any = None, **tags: str) -> dict[str, Any]:
    """The parameters of a launch."""
    selector: dict[str, Any] = {"jobName": job, **REPOSITORY_SELECTOR}
    if assets:
        selector["assetSelection"] = [{"path": asset.split("/")} for asset in assets]
        tags["dagster/partition"] = "one"
    given = [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]
    return {
        "selector": selector, "runConfigData": config or {}, "mode": "default", "executionMetadata": {"tags": given},
    }  # fmt: skip


def backfill_of(*assets: str, **tags: str) -> dict[str, Any]:
    given = [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]
    keys = [{"path": asset.split("/")} for asset in assets]
    return {"assetSelection": keys, "partitionNames": ["one"], "fromFailure": False, "tags": given}


def written(name: str, mutation: GraphQLField) -> str:
    """The text of a mutation with arguments of valid types."""
    given = ", ".join(f"{each}: {_value(argument.type)}" for each, argument in mutation.args.items())
    answered = (
        " { __typename ... on Error { message } }" if is_composite_type(get_named_type(mutation.type)) else ""
    )
    return f"mutation {{ it: {name}{f'({given})' if given else ''}{answered} }}"


def _value(kind: Any) -> str:
    if isinstance(kind, GraphQLNonNull):
        return _value(kind.of_type)
    if isinstance(kind, GraphQLList):
        return f"[{_value(kind.of_type)}]"
    if isinstance(kind, GraphQLInputObjectType):
        needed = {n: f.type for n, f in kind.fields.items() if isinstance(f.type, GraphQLNonNull)}
        return f"{{{', '.join(f'{n}: {_value(t)}' for n, t in needed.items())}}}"
    if is_enum_type(kind):
        return next(iter(kind.values))
    return {"Boolean": "true", "Int": "1", "Float": "1.5"}.get(kind.name, '"x"')
