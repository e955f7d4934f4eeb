"""Where files may lie, where they arrive and where events go: the domain's settings, from the environment."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field


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
        given = _setting(self.allowed_locations, "KINTELL_ALLOWED_LOCATIONS", str(Path.cwd()))
        locations = [place.strip() for place in given.split(",") if place.strip()]
        return [*locations, self.inbox_url] if self.inbox_url else locations

    @property
    def inbox_url(self) -> str:
        return _setting(self.inbox, "KINTELL_INBOX", "")

    @property
    def nats(self) -> str:
        return _setting(self.nats_url, "KINTELL_NATS_URL", "")

    @property
    def stream_name(self) -> str:
        return _setting(self.stream, "KINTELL_STREAM", "KINTELL")

    def error_file(self, job: object) -> str:
        """Where the error file of a job goes."""
        from dagster_backfills.lib.state import state_dir

        folder = _setting(self.error_files, "KINTELL_ERROR_FILES", str(state_dir() / "kintell" / "errors"))
        return f"{folder.rstrip('/')}/{job}.csv"


def _setting(given: str, variable: str, default: str) -> str:
    return given or os.environ.get(variable, "").strip() or default


@dg.definitions
def kintell_resources() -> dg.Definitions:
    # Ops hand each other little more than a job's id, by files, so that a run can be re-executed from any op.
    return dg.Definitions(
        resources={"kintell": KintellSettings(), "kintell_handoff": dg.FilesystemIOManager()}
    )
