"""The package as it is installed in the image: from the wheel, with no checkout around it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_LOOK = """
import dagster_backfills
from dagster_backfills.definitions import defs
from dagster_backfills.state import project_file
repository = defs().get_repository_def()
print(dagster_backfills.__file__, len(repository.assets_defs_by_key), sep=chr(10))
print(*(project_file(name) for name in ("sql", "dagster.yaml", "workspace.yaml")), sep=chr(10))
"""


@pytest.mark.e2e
def test_the_wheel_alone_has_all_that_the_definitions_need(project_root: Path, tmp_path: Path) -> None:
    from dagster_backfills.definitions import defs

    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=project_root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    done = subprocess.run(
        [sys.executable, "-c", _LOOK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    package, assets, *files = done.stdout.splitlines()
    assert Path(package).parent == installed / "dagster_backfills"
    assert int(assets) == len(defs().get_repository_def().assets_defs_by_key)
    assert all(Path(file).exists() and Path(file).is_relative_to(installed) for file in files)
