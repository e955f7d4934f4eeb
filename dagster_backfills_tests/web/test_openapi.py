"""The document is derived from the routes, and complete. Every test of this folder compares its responses with it."""

import json
import re

from jsonschema import Draft202012Validator

from dagster_backfills.web.api.document import document, routes


def test_the_document_has_every_route_with_what_it_takes_and_gives():
    paths = document()["paths"]
    for route in routes:
        for method in route.documented:
            assert paths[route.path][method.lower()]["summary"], (
                f"{method} {route.path} says nothing of itself"
            )
    replay = paths["/import/backfill/{job}/replay"]["post"]
    assert replay["summary"] == "Retry an import's rejected rows after their cause was fixed. Scope: imports."
    assert [each["name"] for each in replay["parameters"]] == ["job"]
    assert "createMissingUsers" in document()["components"]["schemas"]["Replay"]["properties"]
    listed = {each["name"] for each in paths["/api/jobs"]["get"]["parameters"]}
    assert listed == {"status", "jobType", "userId", "companyId", "before", "limit"}


def test_every_reference_of_the_document_resolves():
    for kind, name in re.findall(r"#/components/(\w+)/(\w+)", json.dumps(document())):
        assert name in document()["components"][kind]


def test_every_schema_of_the_document_is_valid():
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_document_needs_no_token(doors):
    assert doors.get("/openapi.json").json() == document()
