"""The structure of the command line, and properties of all commands."""

import json
import os
import signal
import subprocess
import sys
from importlib import metadata

import psycopg
import pytest
import typer

from dagster_backfills.cli.app import COMMANDS, found_at
from dagster_backfills_tests.cli.conftest import SCRIPT, Cli, eventually
from dagster_backfills_tests.programs import run

pytestmark = pytest.mark.programs

# Instead of the shell that runs the tests.
_NO_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
LOADED = """
import sys
from dagster_backfills.cli import main
sys.argv = ["backfills", "--help"]
try:
    main()
except SystemExit as end:
    heavy = {"dagster", "pandas", "polars", "pyarrow", "sqlalchemy", "matplotlib", "psycopg"}
    print(end.code, sorted(heavy & set(sys.modules)))
"""


def test_help_names_every_command_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert summary.split()[0] in done.stdout


@pytest.mark.parametrize("name", ["training", "kintell.commands", "queue.commands"])
def test_a_domains_commands_load_dagster_and_data_libraries_only_when_they_work(name: str):
    code = (
        f"import sys, dagster_backfills.cli.{name};"
        "print(sorted({'dagster', 'pandas', 'polars', 'pyarrow', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_readme_exists_and_has_a_help_text(name: str):
    assert isinstance(found_at(COMMANDS[name][0]), typer.Typer)
    done = run([SCRIPT, name, "--help"])
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: backfills {name} ")
    assert "--install-completion" not in done.stdout


def test_an_unknown_command_or_option_exits_with_2_and_is_named(cli: Cli):
    for arguments, message in (
        (["ip"], "ip"),
        (["migrate", "--statos"], "--statos"),
        (["up", "--port", "x"], "--port"),
    ):
        done = cli(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""


def test_the_installed_script_prints_the_version():
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"backfills {metadata.version('dagster-backfills')}\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("backfills thr", ["throttle"]),
        ("backfills kintell re", ["resume", "replay"]),
        ("backfills status --needs", ["--needs-backfill"]),
    ],
)
def test_a_shell_completes_commands_subcommands_and_options(cli: Cli, typed: str, completed: list[str]):
    words = str(len(typed.split()) - 1)
    env = {"_BACKFILLS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": words}
    assert cli(env=env).stdout.split() == completed


def test_the_completion_script_of_a_shell_is_printed(cli: Cli):
    assert "_BACKFILLS_COMPLETE=complete_bash" in cli("--show-completion", "bash", env=_NO_SHELL).stdout


def test_migrate_brings_an_empty_database_up_to_date_and_says_what_it_did(cli: Cli, make_database):
    env = {"DATABASE_URL": make_database(migrated=False)}
    waiting = cli("migrate", "--status", "--json", env=env)
    assert waiting.returncode == 1
    names = json.loads(waiting.stdout)["pending"]
    assert names[0] == "0001_backfill"
    done = cli("migrate", env=env)
    assert done.returncode == 0
    assert [f"Applied {name}." for name in names] == done.stderr.splitlines()[:-1]
    again = cli("migrate", "--json", env=env)
    assert json.loads(again.stdout) == {
        "applied_now": [],
        "applied": names,
        "pending": [],
        "domains": ["training", "progress", "kintell", "queue", "scoring", "operations"],
    }
    assert cli("migrate", "--status", env=env).stdout.splitlines()[1] == "0001_backfill\tapplied"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_exits_with_130_and_without_a_traceback(make_database, number):
    url = make_database(migrated=False)
    query = (
        "select count(*) from pg_stat_activity where query like '%advisory_lock%' and pid <> pg_backend_pid()"
    )
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(7204431118)")
        env = os.environ | {"DATABASE_URL": url}
        process = subprocess.Popen([SCRIPT, "migrate"], env=env, stderr=subprocess.PIPE, text=True)
        eventually(lambda: holder.execute(query).fetchone() != (0,))
        process.send_signal(number)
        assert process.communicate()[1] == "backfills: Interrupted.\n"
        assert process.returncode == 130


def test_a_closed_pipe_is_not_an_error(database_url):
    env = os.environ | {"DATABASE_URL": database_url}
    process = subprocess.Popen(
        [SCRIPT, "migrate", "--status"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_env_prints_the_variables_that_dagster_and_psql_need(cli: Cli, database_url: str, tmp_path):
    done = cli("env", env={"BACKFILLS_HOME": str(tmp_path / "it's a home")})
    assert done.returncode == 0
    show = (
        "import os; print([os.environ[k] for k in ('DATABASE_URL', 'DAGSTER_HOME', 'DAGSTER_POSTGRES_URL')])"
    )
    script = f'{done.stdout}\n{sys.executable} -c "{show}"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={}).stdout
    url, home, dagster_url = eval(shown)
    assert url == database_url
    assert home == str(tmp_path / "it's a home" / "dagster_home")
    with psycopg.connect(dagster_url) as conn:
        assert conn.execute("select count(*) from runs").fetchone() == (0,)
