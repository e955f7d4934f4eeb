"""A request that came in: who asks, what stands in its address, and what there is to answer it with."""

from dataclasses import dataclass

from starlette.requests import Request

from dagster_backfills.web.actions import Actions
from dagster_backfills.web.auth import Identity
from dagster_backfills.web.database import Database


@dataclass
class Call:
    """One request."""

    request: Request

    @property
    def actions(self) -> Actions:
        found: Actions = self.request.app.state.actions
        return found

    @property
    def database(self) -> Database:
        """`with call.database() as conn:`"""
        return self.actions.database

    @property
    def who(self) -> Identity:
        found: Identity = self.request.state.identity
        return found

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])
