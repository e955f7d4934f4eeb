"""The package as in the image: installed from the wheel, without a checkout."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dagster_backfills.domain_switches import LIBRARIES

pytestmark = pytest.mark.programs

_LOOK = """
import dagster_backfills
from dagster_backfills.definitions import defs
from dagster_backfills.state import project_file
repository = defs().get_repository_def()
print(dagster_backfills.__file__, len(repository.assets_defs_by_key), sep=chr(10))
print(*(project_file(name) for name in ("sql", "dagster.yaml", "workspace.yaml")), sep=chr(10))
"""


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=project_root, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_domains_libraries_are_dependencies_of_extras_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    always = {each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})}
    assert always == {
        "dagster", "dagster-webserver", "dagster-postgres", "dagster-dg-cli", "pandas", "psutil", "psycopg", "pyarrow",
        "pyyaml", "rich", "sqlalchemy", "typer",
    }  # fmt: skip
    for domain, libraries in LIBRARIES.items():
        of_it = {each.name for each in required if each.marker and each.marker.evaluate({"extra": domain})}
        assert of_it - always >= {{"nats": "nats-py"}.get(name, name.replace("_", "-")) for name in libraries}
    assert {*LIBRARIES, "all"} <= set(metadata.get_all("Provides-Extra", []))


@pytest.mark.e2e
def test_the_wheel_contains_all_files_that_the_definitions_need(wheel: Path, tmp_path: Path) -> None:
    from dagster_backfills.definitions import defs

    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    done = subprocess.run(
        [sys.executable, "-c", _LOOK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed), "BACKFILLS_DOMAINS": "all"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    package, assets, *files = done.stdout.splitlines()
    assert Path(package).parent == installed / "dagster_backfills"
    assert int(assets) == len(defs().get_repository_def().assets_defs_by_key)
    assert all(Path(file).exists() and Path(file).is_relative_to(installed) for file in files)
