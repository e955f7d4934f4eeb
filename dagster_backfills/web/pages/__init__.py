"""Pages for people: rendered here, readable without JavaScript, live with it. What they change, `actions` does."""

from pathlib import Path

from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dagster_backfills.web.pages import coach_day, files, imports, jobs, progress
from dagster_backfills.web.pages.visit import go_to

routes: list[BaseRoute] = [
    Route("/", lambda _: go_to("/imports")),
    *files.routes,  # `/imports/files/…` before `/imports/{job}/…`
    *imports.routes,
    *jobs.routes,
    *progress.routes,
    *coach_day.routes,
    Mount("/static", StaticFiles(directory=Path(__file__).parents[1] / "static")),
]

__all__ = ["routes"]
