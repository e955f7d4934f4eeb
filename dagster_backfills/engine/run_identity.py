"""The run that the engine works for. Not here: its records (`ledger`)."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunIdentity:
    """Identifies the Dagster run and step that the engine works for.

    root_run_id: the first run of a chain of retries; by default this run. resumes: skip what runs with the same root
    have finished. undoes: the run that this run undoes. started_by: the user, schedule or sensor that launched it.
    """

    run_id: str
    step: str = ""
    root_run_id: str = ""
    resumes: bool = False
    undoes: str | None = None
    started_by: str = ""

    @property
    def root(self) -> str:
        return self.root_run_id or self.run_id

    @property
    def binds(self) -> dict[str, Any]:
        return {**vars(self), "root": self.root}
