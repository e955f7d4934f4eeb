"""Settings from environment variables, for models whose fields are numbers and texts: one variable a field.

A bad one never keeps the definitions from loading: it counts as none given there, and a run says which it is.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from dagster_backfills.errors import UserError


class BadSetting(UserError):
    """A variable that can't be what it is set to."""


def _listed(given: object) -> object:
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


Listed = BeforeValidator(_listed)  # of a field with several values: a text has commas between them


def from_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields whose variables `PREFIX_FIELD` are set. Raises BadSetting that names the first that is wrong."""
    given = _given(model, prefix, environment)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        name = prefix + field.upper()
        raise BadSetting(
            f"{name} is {given[field]!r}: {first['msg']}.", hint=f"Correct or unset {name}."
        ) from None
    return {field: getattr(checked, field) for field in given}


def usable_from_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The same without those that are wrong: what definitions are loaded with."""
    usable: dict[str, Any] = {}
    for field, text in _given(model, prefix, environment).items():
        try:
            usable |= from_environment(model, prefix, {prefix + field.upper(): text})
        except UserError:
            continue
    return usable


def _given(model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None) -> dict[str, str]:
    environment = os.environ if environment is None else environment
    named = {field: environment.get(prefix + field.upper(), "").strip() for field in model.model_fields}
    return {field: text for field, text in named.items() if text}
