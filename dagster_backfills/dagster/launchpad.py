"""What a job's launchpad asks for: the fields of one model, flat. What is wrong with them refuses the launch."""

from typing import Any

import dagster as dg
from pydantic import ValidationError


def flat(model: type[dg.Config], *ops: str) -> Any:
    """The configuration of a job: the model's fields, which each of these ops is given."""

    def spread(config: Any) -> dict[str, Any]:
        given = config.model_dump(mode="json", exclude_none=True)
        return {"ops": {op: {"config": given} for op in ops}}

    spread.__annotations__["config"] = model
    return dg.config_mapping(spread)


def in_words(error: ValidationError) -> str:
    """What is wrong with a model's fields, as people read it."""
    wrong = ((each["loc"], each["msg"].removeprefix("Value error, ")) for each in error.errors())
    return "; ".join(": ".join(filter(None, [".".join(map(str, where)), said])) for where, said in wrong)
