"""Settings from environment variables: one variable for each field of a pydantic model of numbers and strings.

An invalid variable never keeps the definitions from loading. It is ignored there, and a run fails with its name.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from dagster_backfills.errors import UserError


class BadSetting(UserError):
    """An environment variable has an invalid value."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Listed = BeforeValidator(_split)  # for list fields: splits a string at commas


def from_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields whose variables `PREFIX_FIELD` are set. Raises BadSetting for the first invalid variable."""
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
    """The same without invalid variables, for loading definitions."""
    usable: dict[str, Any] = {}
    for field, text in _given(model, prefix, environment).items():
        try:
            usable |= from_environment(model, prefix, {prefix + field.upper(): text})
        except UserError:
            continue
    return usable


def _given(model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None) -> dict[str, str]:
    environment = os.environ if environment is None else environment
    texts = {field: environment.get(prefix + field.upper(), "").strip() for field in model.model_fields}
    return {field: text for field, text in texts.items() if text}
