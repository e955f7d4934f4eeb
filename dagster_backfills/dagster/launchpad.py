"""Flat job configuration: the launchpad shows the fields of one model, and invalid values prevent the launch."""

from typing import Any

import dagster as dg
from pydantic import ValidationError


def flat(model: type[dg.Config], *ops: str) -> Any:
    """A config mapping that passes the model's fields to each of these ops."""

    def to_op_config(config: Any) -> dict[str, Any]:
        values = config.model_dump(mode="json", exclude_none=True)
        return {"ops": {op: {"config": values} for op in ops}}

    to_op_config.__annotations__["config"] = model
    return dg.config_mapping(to_op_config)


def in_words(error: ValidationError) -> str:
    """The validation errors as one line of text, each with its field."""
    errors = ((each["loc"], each["msg"].removeprefix("Value error, ")) for each in error.errors())
    return "; ".join(": ".join(filter(None, [".".join(map(str, loc)), text])) for loc, text in errors)
