"""The document and the routes name the same things. That answers are as it says, every test of this folder holds."""

from jsonschema import Draft202012Validator

from dagster_backfills.web.api.health import document
from dagster_backfills.web.app import ROUTES


def test_the_document_has_every_route_and_no_other():
    documented = {
        (path, method.upper())
        for path, operations in document()["paths"].items()
        for method in operations
        if method != "parameters"
    }
    served = {(route.path, method) for route in ROUTES for method in route.methods}
    silent = {(path, "HEAD") for path, method in served if method == "HEAD" and "uploads" not in path}
    assert documented == served - silent


def test_every_schema_of_the_document_is_one():
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_document_is_served_to_whoever_asks(doors):
    assert doors.get("/openapi.json").json() == document()
