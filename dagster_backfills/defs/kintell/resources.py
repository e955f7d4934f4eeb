"""Where files may lie, where they arrive, where events go, where days begin: the domain's settings."""

from datetime import date
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, Field

from dagster_backfills.domains.kintell.file.files import FileError, place_of
from dagster_backfills.environment import from_environment
from dagster_backfills.state import state_dir

VARIABLES = "KINTELL_"


class SummaryDays(BaseModel):
    """Which days can be summarized: `KINTELL_FIRST_DAY`."""

    first_day: date = Field(default=date(2000, 1, 1), description="By itself long before any session.")


class KintellSettings(dg.ConfigurableResource):
    """What is left empty comes from the field's variable, `KINTELL_INBOX` say, at the moment that it is needed: no
    definition holds the password of NATS. Where that is silent, from the default."""

    allowed_locations: str = Field(
        default="",
        description="Folders and fsspec URLs that files may be imported from, separated by commas. "
        "By default the working directory. The inbox is always allowed.",
    )
    inbox: str = Field(
        default="", description="A folder or fsspec URL; new files in it are imported. By default none."
    )
    uploads: str = Field(
        default="",
        description="Folder or fsspec URL where uploaded files are kept; always allowed. By default a folder of "
        "the project's own.",
    )
    error_files: str = Field(
        default="",
        description="Folder or fsspec URL that error files are written to. By default a folder of the project's own.",
    )
    nats_url: str = Field(default="", description="The NATS server. By default none: events wait.")
    stream: str = Field(default="", description="The JetStream stream. By default KINTELL.")

    @property
    def allowed(self) -> list[str]:
        """Where files may lie. Raises `FileError` for a location that is none."""
        given = self._said("allowed_locations", str(Path.cwd())).split(",")
        locations = [_place("allowed_locations", each) for each in given if each.strip()]
        return [*locations, *filter(None, [self.inbox_url, self.uploads_url])]

    @property
    def uploads_url(self) -> str:
        """Where uploads are kept. Raises `FileError` for a relative path."""
        return _place("uploads", self._said("uploads", str(state_dir() / "kintell" / "uploads")))

    @property
    def inbox_url(self) -> str:
        """The inbox, the same for every process; empty without one. Raises `FileError` for a relative path."""
        given = self._said("inbox")
        return _place("inbox", given) if given else ""

    @property
    def nats(self) -> str:
        return self._said("nats_url")

    @property
    def stream_name(self) -> str:
        return self._said("stream", "KINTELL")

    def error_file(self, job: object) -> str:
        """Where the error file of a job goes. Raises `FileError` for a relative path."""
        folder = self._said("error_files", str(state_dir() / "kintell" / "errors"))
        return f"{_place('error_files', folder).rstrip('/')}/{job}.csv"

    def _said(self, field: str, default: str = "") -> str:
        said: str = getattr(self, field) or from_environment(type(self), VARIABLES).get(field, default)
        return said


def _place(field: str, given: str) -> str:
    try:
        return str(place_of(given.strip()))
    except FileError as error:
        raise FileError(f"{VARIABLES}{field.upper()}: {error.message}", error.hint) from error


@dg.definitions
def kintell_resources() -> dg.Definitions:
    return dg.Definitions(resources={"kintell": KintellSettings()})
