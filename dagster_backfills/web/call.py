"""A request with its caller, path parameters, actions and database."""

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
        actions: Actions = self.request.app.state.actions
        return actions

    @property
    def database(self) -> Database:
        """`with call.database() as conn:`"""
        return self.actions.database

    @property
    def who(self) -> Identity:
        identity: Identity = self.request.state.identity
        return identity

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])
