"""The domain's settings: allowed locations, inbox, uploads, error files, NATS, first day of the summary."""

from datetime import date
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, Field

from dagster_backfills.domains.kintell.file.files import FileError, place_of
from dagster_backfills.environment import from_environment
from dagster_backfills.state import state_dir

VARIABLES = "KINTELL_"


class SummaryDays(BaseModel):
    """The days that can be summarized."""

    first_day: date = Field(default=date(2000, 1, 1), description="The first day that can be summarized.")


class KintellSettings(dg.ConfigurableResource):
    """An empty field is read from its environment variable (such as `KINTELL_INBOX`) when it is used, so that no
    definition holds the NATS password. If the variable is not set either, the default applies."""

    allowed_locations: str = Field(
        default="",
        description="Folders and fsspec URLs that files may be imported from, separated by commas. "
        "Default: the working directory. The inbox is always allowed.",
    )
    inbox: str = Field(
        default="", description="Folder or fsspec URL whose new files are imported. Default: none."
    )
    uploads: str = Field(
        default="",
        description="Folder or fsspec URL for uploaded files. Always allowed. Default: a folder in the project's "
        "state directory.",
    )
    error_files: str = Field(
        default="",
        description="Folder or fsspec URL for error files. Default: a folder in the project's state directory.",
    )
    nats_url: str = Field(default="", description="The NATS server. Default: none, so events wait.")
    stream: str = Field(default="", description="The JetStream stream. Default: KINTELL.")

    @property
    def allowed(self) -> list[str]:
        """The locations that files may be imported from. Raises `FileError` for an invalid one."""
        given = self._value("allowed_locations", str(Path.cwd())).split(",")
        locations = [_place("allowed_locations", each) for each in given if each.strip()]
        return [*locations, *filter(None, [self.inbox_url, self.uploads_url])]

    @property
    def uploads_url(self) -> str:
        """The folder for uploads. Raises `FileError` for a relative path."""
        return _place("uploads", self._value("uploads", str(state_dir() / "kintell" / "uploads")))

    @property
    def inbox_url(self) -> str:
        """The inbox, or an empty string. Raises `FileError` for a relative path."""
        given = self._value("inbox")
        return _place("inbox", given) if given else ""

    @property
    def nats(self) -> str:
        return self._value("nats_url")

    @property
    def stream_name(self) -> str:
        return self._value("stream", "KINTELL")

    def error_file(self, job: object) -> str:
        """The location of a job's error file. Raises `FileError` for a relative path."""
        folder = self._value("error_files", str(state_dir() / "kintell" / "errors"))
        return f"{_place('error_files', folder).rstrip('/')}/{job}.csv"

    def _value(self, field: str, default: str = "") -> str:
        value: str = getattr(self, field) or from_environment(type(self), VARIABLES).get(field, default)
        return value


def _place(field: str, given: str) -> str:
    try:
        return str(place_of(given.strip()))
    except FileError as error:
        raise FileError(f"{VARIABLES}{field.upper()}: {error.message}", error.hint) from error


@dg.definitions
def kintell_resources() -> dg.Definitions:
    return dg.Definitions(resources={"kintell": KintellSettings()})
