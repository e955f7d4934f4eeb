"""Where files may lie, where they arrive and where events go: the domain's settings, from the environment."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from dagster_backfills.domains.kintell.file.files import FileError, place_of
from dagster_backfills.state import state_dir


class KintellSettings(dg.ConfigurableResource):
    """What is left empty comes from the environment, and where that is silent, from the default."""

    allowed_locations: str = Field(
        default="",
        description="Folders and fsspec URLs that files may be imported from, with commas between them. "
        "KINTELL_ALLOWED_LOCATIONS; by default the working directory. The inbox is always allowed.",
    )
    inbox: str = Field(
        default="",
        description="A folder or fsspec URL; new files in it are imported. KINTELL_INBOX; default: none.",
    )
    uploads: str = Field(
        default="",
        description="Folder or fsspec URL that files are kept in that came over HTTP; always allowed. KINTELL_UPLOADS; "
        "by default a folder of the project's own.",
    )
    error_files: str = Field(
        default="",
        description="Folder or fsspec URL that error files are written to. KINTELL_ERROR_FILES; by default a folder "
        "of the project's own.",
    )
    nats_url: str = Field(
        default="", description="The NATS server. KINTELL_NATS_URL; default: none, events wait."
    )
    stream: str = Field(default="", description="The JetStream stream. KINTELL_STREAM; default: KINTELL.")

    @property
    def allowed(self) -> list[str]:
        """Where files may lie. Raises `FileError` for a location that is none."""
        given = _setting(self.allowed_locations, "KINTELL_ALLOWED_LOCATIONS", str(Path.cwd()))
        locations = [_place("KINTELL_ALLOWED_LOCATIONS", each) for each in given.split(",") if each.strip()]
        return [*locations, *filter(None, [self.inbox_url, self.uploads_url])]

    @property
    def uploads_url(self) -> str:
        """Where uploads are kept. Raises `FileError` for a relative path."""
        folder = _setting(self.uploads, "KINTELL_UPLOADS", str(state_dir() / "kintell" / "uploads"))
        return _place("KINTELL_UPLOADS", folder)

    @property
    def inbox_url(self) -> str:
        """The inbox, the same for every process; empty without one. Raises `FileError` for a relative path."""
        given = _setting(self.inbox, "KINTELL_INBOX", "")
        return _place("KINTELL_INBOX", given) if given else ""

    @property
    def nats(self) -> str:
        return _setting(self.nats_url, "KINTELL_NATS_URL", "")

    @property
    def stream_name(self) -> str:
        return _setting(self.stream, "KINTELL_STREAM", "KINTELL")

    def error_file(self, job: object) -> str:
        """Where the error file of a job goes."""
        folder = _setting(self.error_files, "KINTELL_ERROR_FILES", str(state_dir() / "kintell" / "errors"))
        return f"{_place('KINTELL_ERROR_FILES', folder).rstrip('/')}/{job}.csv"


def _setting(given: str, variable: str, default: str) -> str:
    return given or os.environ.get(variable, "").strip() or default


def _place(variable: str, given: str) -> str:
    try:
        return str(place_of(given.strip()))
    except FileError as error:
        raise FileError(f"{variable}: {error.message}", error.hint) from error


@dg.definitions
def kintell_resources() -> dg.Definitions:
    return dg.Definitions(resources={"kintell": KintellSettings()})
