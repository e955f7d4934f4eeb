"""Schemas of the frames that are written to the database. Each batch is validated against them."""

from functools import cache

import pandas as pd
from pandera.errors import SchemaError
from pandera.pandas import Check, Column, DataFrameSchema

from dagster_backfills.domains.scoring.rules import FACTORS, FLAGS


def validated(asset: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame. Raises ValueError, naming the column, if it is not valid."""
    try:
        return schema(asset).validate(frame)
    except SchemaError as error:
        raise ValueError(f"{asset}: {error}") from error


@cache
def schema(asset: str) -> DataFrameSchema:
    """The schema of an asset's frame."""
    points = Column(int, Check.in_range(0, 100))
    since = Column("Int64", Check.ge(0), nullable=True)
    key = {"member_id": Column(str)}
    schemas = {
        "scoring/commitment_scores": {
            **key,
            "score": points,
            **dict.fromkeys(FACTORS, points),
            "time_decay": Column(float, Check.in_range(0, 1)),
            "velocity_per_week": Column(float),
            "days_since_last_visit": since,
            **dict.fromkeys(FLAGS, Column(bool)),
            "band": Column(str, Check.isin(["low", "moderate", "good", "high"])),
            "weights_version": Column(str),
        },
        "scoring/churn_risk_scores": {
            **key,
            "level": Column(str, Check.isin(["none", "low", "medium", "high"])),
            "score": points,
            "commitment_score": points,
            "days_since_last_visit": since,
        },
        "scoring/coach_actions": {
            **key,
            "coach_id": Column(str),
            "type": Column(
                str,
                Check.isin(["contact_member", "send_campaign", "check_in", "investigate_issue", "follow_up"]),
            ),
            "priority": Column(str, Check.isin(["low", "medium", "high"])),
            **dict.fromkeys(("title", "description", "reason_codes"), Column(str)),
            "commitment_score": points,
            "churn_risk_score": points,
            "churn_risk_level": Column(str, Check.isin(["low", "medium", "high"])),
            "days_since_last_visit": since,
        },
    }
    unique = ["member_id", "coach_id"] if asset == "scoring/coach_actions" else ["member_id"]
    return DataFrameSchema(schemas[asset], unique=unique, strict=True)
