"""A user's Dagster project: a virtual environment with the built wheel, and nothing from this checkout.

It has the engine's dependencies, but not the libraries of the extras. Its programs are forked from a process of this
environment.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import ServerFailed, Webserver, free_port, stop_groups
from dagster_backfills.domain_switches import LIBRARIES
from dagster_backfills_tests.e2e.graphql import wait_for
from dagster_backfills_tests.e2e.nursery import Nursery

SCRIPTS = {
    "dg": "dagster_dg_cli.cli",
    "dagster": "dagster.__main__",
    "dagster-daemon": "dagster._daemon.cli",
    "dagster-webserver": "dagster_webserver.cli",
    "backfills": "dagster_backfills.cli",
}
# With a main guard like installed scripts: steps of Dagster's multiprocess executor import the script again.
SCRIPT = """#!{python}
import sys
from {module} import main
if __name__ == "__main__":
    sys.exit(main())
"""
# The extras' libraries are installed here, but hidden.
WITHOUT_EXTRAS = """import sys
from importlib.machinery import PathFinder


class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {libraries} else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
"""
DEFINITIONS = """from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PYPROJECT = """[project]
name = "ours"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "ours"
"""


@dataclass(frozen=True)
class OwnProject:
    """The project's folder and the programs of its environment. Dagster has its default settings."""

    folder: Path
    bin: Path
    database_url: str
    nursery: Nursery

    @property
    def defs(self) -> Path:
        return self.folder / "src" / "ours" / "defs"

    def run(self, *command: str, expect: int | None = 0) -> str:
        """Run a program of the environment in the project's folder. Returns its output."""
        output = self.folder / "output.log"
        output.unlink(missing_ok=True)
        ended = self.nursery.start([str(self.bin / command[0]), *command[1:]], output).wait()
        said = output.read_text()
        assert expect is None or ended == expect, said
        return said

    @contextmanager
    def servers(self) -> Iterator[Webserver]:
        """Start the project's own webserver and daemon."""
        # By one process first: three concurrent ones would interfere when they create Dagster's storage.
        self.run("dagster", "instance", "migrate")
        port, log = free_port(), self.folder / "webserver.log"
        webserver = str(self.bin / "dagster-webserver")
        command = [webserver, "-h", "127.0.0.1", "-p", str(port), "-m", "ours.definitions"]
        daemon = [str(self.bin / "dagster-daemon"), "run", "-m", "ours.definitions"]
        process = self.nursery.start(command, log)
        processes = [process, self.nursery.start(daemon, self.folder / "daemon.log")]
        answers = Webserver(f"http://127.0.0.1:{port}")

        def ready() -> bool:
            if process.poll() is not None:
                raise ServerFailed(log.read_text()[-3000:])
            try:
                return bool(answers.ask("{ version }"))
            except OSError:
                return False

        try:
            wait_for("the webserver", ready, 240)
            yield answers
        finally:
            stop_groups(processes)


def make_environment(root: Path, checkout: Path) -> Path:
    """Build the wheel and install it into a new environment."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root / "wheel")]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    [wheel] = (root / "wheel").glob("*.whl")
    environment = root / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "-q"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    return environment


@contextmanager
def make_project(root: Path, made: Path, database_url: str) -> Iterator[OwnProject]:
    """Create an empty project with a copy of the environment."""
    venv, folder = shutil.copytree(made, root / "venv", symlinks=True), root / "ours"
    bin, package = venv / "bin", folder / "src" / "ours"
    home = folder / "dagster_home"
    for each in (home, package / "defs"):
        each.mkdir(parents=True)
    [site] = venv.glob("lib/python*/site-packages")
    # The wheel's dependencies are installed here: an additional path, whose `.pth` files are ignored.
    (site / "dependencies.pth").write_text(f"{package.parent}\n{sysconfig.get_path('purelib')}\n")
    libraries = {name for names in LIBRARIES.values() for name in names}
    (site / "without_extras.py").write_text(WITHOUT_EXTRAS.format(libraries=libraries))
    (site / "without_extras.pth").write_text("import without_extras\n")
    for name, module in SCRIPTS.items():
        script = bin / name
        script.write_text(SCRIPT.format(python=bin / "python", module=module))
        script.chmod(0o755)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (package / "definitions.py").write_text(DEFINITIONS)
    for each in (package, package / "defs"):
        (each / "__init__.py").touch()
    (home / "dagster.yaml").touch()
    environment = {
        "PATH": f"{bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(folder),
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": database_url,
        "VIRTUAL_ENV": str(venv),
        "COLUMNS": "200",
    }
    with Nursery(bin / "python", environment, folder) as nursery:
        yield OwnProject(folder, bin, database_url, nursery)
