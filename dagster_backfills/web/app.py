"""The ASGI application: its routes, middleware and shared state."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api import document
from dagster_backfills.web.database import Database
from dagster_backfills.web.door import Door
from dagster_backfills.web.events import JobEvents
from dagster_backfills.web.pages import coach_day, files, imports, jobs, progress
from dagster_backfills.web.pages.visit import go_to
from dagster_backfills.web.refusals import refuse
from dagster_backfills.web.settings import Settings

PAGES: list[BaseRoute] = [
    Route("/", lambda _: go_to("/imports")),
    *files.routes,  # `/imports/files/…` must come before `/imports/{job}/…`
    *imports.routes,
    *jobs.routes,
    *progress.routes,
    *coach_day.routes,
    Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
]


def create_app(settings: Settings) -> Starlette:
    """Create the application, with `actions` and `events` in `app.state`."""
    app = Starlette(
        routes=[*document.routes, *PAGES],
        lifespan=_lifespan,
        middleware=[Middleware(Door, settings=settings)],
        # All other errors reach the middleware, which answers them the same way.
        exception_handlers={HTTPException: refuse},
    )
    database = Database(settings.limits.connections)
    app.state.actions = Actions(settings, database)
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
        actions.runs.close()
