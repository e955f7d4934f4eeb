"""Runs the commands of a documentation page on a pseudo-terminal, against this checkout."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dagster_backfills.cli.errors import INTERRUPTED
from dagster_backfills_tests.terminal import on_a_terminal

WIDTH = 100


@dataclass
class Checkout:
    """The working folder, the database, and further environment variables. Questions are answered with yes."""

    folder: Path
    database_url: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, expect: int | None = 0) -> str:
        endless = "watch" in command or "--watch" in command
        found = {"DATABASE_URL": self.database_url} if self.database_url else {}
        code, shown = on_a_terminal(
            WIDTH,
            str(Path(sys.executable).with_name(command[0])),
            *command[1:],
            env={**os.environ, **found, **self.variables},
            cwd=self.folder,
            answer="y\n",
            endless=endless,
        )
        fine = code == (INTERRUPTED if endless else expect) or expect is None
        assert fine, f"$ {' '.join(command)}\n… {shown[-3000:]}\n--- ended with {code}"
        return shown
