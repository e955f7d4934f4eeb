"""Settings from environment variables, for models whose fields are numbers and texts: one variable a field.

A bad one never keeps the definitions from loading: it counts as none given there, and a run says which it is.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dagster_backfills.errors import UserError


def from_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields whose variables `PREFIX_FIELD` are set. Raises UserError that names the first that is wrong."""
    given = _given(model, prefix, environment)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + "_".join(str(part) for part in first["loc"]).upper()
        raise UserError(
            f"{name} is {first['input']!r}: {first['msg']}.", hint=f"Correct or unset {name}."
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
