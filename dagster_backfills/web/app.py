"""The application: its routes, what they share, and what lives as long as it does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from dagster_backfills.errors import UserError
from dagster_backfills.instance.launching import Launcher
from dagster_backfills.web import pages
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api import backfills, cron, health, imports, jobs, uploads
from dagster_backfills.web.database import Database
from dagster_backfills.web.door import Door
from dagster_backfills.web.events import JobEvents
from dagster_backfills.web.refusals import refuse
from dagster_backfills.web.settings import Settings

# `/import/backfill/uploads` before `/import/backfill/{job}`.
ROUTES: list[BaseRoute] = [
    *health.routes, *uploads.routes, *imports.routes, *jobs.routes, *cron.routes, *backfills.routes,
]  # fmt: skip


def create_app(settings: Settings) -> Starlette:
    """The application. `app.state` has `settings`, `database`, `actions` and `events`."""
    app = Starlette(
        routes=[*ROUTES, *pages.routes],
        lifespan=_lifespan,
        middleware=[Middleware(Door, settings=settings)],
        exception_handlers={
            HTTPException: refuse, UserError: refuse, ClientDisconnect: refuse,
        },
    )  # fmt: skip
    database, launcher = Database(settings.limits.connections), Launcher()
    app.state.settings = settings
    app.state.database = database
    app.state.actions = Actions(settings, database, launcher)
    app.state.events = JobEvents(database, settings.limits.followers)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    actions: Actions = app.state.actions
    events: JobEvents = app.state.events
    await run_in_threadpool(actions.uploads.remove_old)
    events.start()
    try:
        yield
    finally:
        await run_in_threadpool(events.stop)
        actions.runs.launcher.close()
