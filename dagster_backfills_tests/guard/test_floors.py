"""The layers: which may import which, the number of imports inside functions, and the length of files."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "dagster_backfills"
# Each layer may import those below it, and not its neighbours. The package's top-level modules are below all.
FLOORS = [
    ("roots",),
    ("postgres",),
    ("engine",),
    ("dagster", "domains"),
    ("instance", "components"),
    ("defs",),
    ("samples", "web"),
    ("cli",),
]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
# Entry points for `dg` and for Python, which load other modules on demand.
FRONT_DOORS = {f"{PACKAGE}/__init__.py", f"{PACKAGE}/definitions.py"}
WITHOUT_DAGSTER = {"roots", "postgres", "engine", "domains"}
# Imports of heavy, optional or platform-specific modules where they are used. This number may only fall.
IMPORTS_INSIDE_FUNCTIONS = 60
LINES, TEST_LINES = 250, 350


def floor_of(module: str) -> str:
    """The layer of a module's dotted name, `dagster_backfills.x.y`."""
    parts = module.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else "roots"


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside functions; also names in modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def imports(project_root: Path) -> dict[str, list[str]]:
    """The imports of each file of the package, by its path."""
    files = sorted((project_root / PACKAGE).rglob("*.py"))
    return {str(path.relative_to(project_root)): list(imported(path)) for path in files}


def test_every_folder_of_the_package_is_a_layer(project_root: Path) -> None:
    folders = {path.parent.name for path in (project_root / PACKAGE).glob("*/__init__.py")}
    assert folders == set(HEIGHT) - {"roots"}


def test_no_module_imports_a_higher_or_neighbouring_layer(imports: dict[str, list[str]]) -> None:
    wrong = [
        f"{path} imports {module}"
        for path, modules in imports.items()
        for module in modules
        if module.startswith(f"{PACKAGE}.") and path not in FRONT_DOORS and not _may(path, module)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_cycle(imports: dict[str, list[str]]) -> None:
    files = {path.removesuffix(".py").replace("/", "."): path for path in imports}
    entry_points = {f"{PACKAGE}.__init__"}  # it loads its names on first use
    graph = {
        module: {other for other in imports[path] if other in files and other != module}
        for module, path in files.items()
        if module not in entry_points
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which lists the modules of the cycle


def _may(path: str, module: str) -> bool:
    own, other = floor_of(path), floor_of(module)
    if own == other == "domains":
        return path.split("/")[2] == module.split(".")[2]
    return own == other or HEIGHT[other] < HEIGHT[own]


def test_the_engine_and_the_domains_do_not_import_dagster(imports: dict[str, list[str]]) -> None:
    wrong = [
        f"{path} imports {module}"
        for path, modules in imports.items()
        for module in modules
        if floor_of(path) in WITHOUT_DAGSTER and path not in FRONT_DOORS and _is_dagster(module)
    ]
    assert wrong == []


def _is_dagster(module: str) -> bool:
    return module.split(".")[0].startswith("dagster") and not module.startswith(PACKAGE)


def test_imports_inside_functions_are_few(imports: dict[str, list[str]], project_root: Path) -> None:
    inside = [f"{path}:{line}" for path in imports for line in sorted(_inside(project_root / path))]
    assert len(inside) <= IMPORTS_INSIDE_FUNCTIONS, "\n".join(inside)


def _inside(path: Path) -> set[int]:
    """The line numbers of imports inside functions."""
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {
        inner.lineno
        for function in functions
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }


@pytest.mark.parametrize(("folder", "most"), [(PACKAGE, LINES), (f"{PACKAGE}_tests", TEST_LINES)])
def test_no_file_is_longer_than_its_limit(project_root: Path, folder: str, most: int) -> None:
    lengths = {
        str(path.relative_to(project_root)): len(path.read_text().splitlines())
        for path in (project_root / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > most} == {}
