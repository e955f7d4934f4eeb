"""Each user's right in each domain, from the file."""

from pathlib import Path
from textwrap import dedent

import pytest

from dagster_backfills.errors import NotUsableError
from dagster_backfills.identity import Identity
from dagster_backfills.instance.roles import Right, read_roles

FILE = """
[users.olga]
"*" = "admin"
training = "view"
[users.tim]
training = "undo"
[users.anna]
"*" = "admin"
[groups.crew]
progress = "launch"
"""


def test_the_highest_right_of_the_user_and_its_groups_counts(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text(FILE)
    roles = read_roles(str(tmp_path / "roles.toml"))
    tim, member = Identity("tim", ("crew",)), Identity("nobody", ("crew", "others"))
    for who, right, domains, may in [
        (tim, Right.undo, ["training"], True),
        (tim, Right.admin, ["training"], False),
        (tim, Right.launch, ["training", "progress"], True),
        (tim, Right.undo, ["training", "progress"], False),
        (member, Right.launch, ["progress"], True),
        (member, Right.launch, None, False),
        (Identity("olga"), Right.admin, None, False),
        (Identity("anna"), Right.admin, None, True),
        (Identity("olga"), Right.admin, ["kintell"], True),
        (Identity("olga"), Right.launch, ["training"], False),
        (Identity("stranger"), Right.view, None, True),
        (Identity("stranger"), Right.launch, ["progress"], False),
    ]:
        assert roles.may(who, right, domains) == may, (who, right, domains)


def test_an_unknown_domain_needs_the_right_in_every_listed_domain(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text('[users.olga]\n"*" = "launch"\ntraining = "view"\n')
    roles = read_roles(str(tmp_path / "roles.toml"))
    assert roles.may(Identity("olga"), Right.launch, ["progress"])
    assert not roles.may(Identity("olga"), Right.launch, None)


def test_the_documented_roles_file_grants_what_the_docs_say(tmp_path: Path, project_root: Path) -> None:
    page = (project_root / "docs" / "how-to" / "secure.md").read_text()
    block = page[page.index("    [users.olga]") :].partition("\n\n| right")[0]
    (tmp_path / "roles.toml").write_text(dedent(block))
    roles = read_roles(str(tmp_path / "roles.toml"))
    assert roles.may(Identity("olga"), Right.admin, None)
    assert roles.may(Identity("tina", ("trainers",)), Right.undo, ["training"])
    assert not roles.may(Identity("tina", ("trainers",)), Right.undo, ["progress"])


def test_without_a_file_everyone_may_do_everything() -> None:
    assert read_roles("").may(Identity("anybody"), Right.admin, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("users = [", "Invalid value"),
        ("[people.olga]", r"\[people\] is neither users nor groups"),
        ('[users]\nolga = "admin"', "users.olga is not a table of domains"),
        ('users = "all"', "users.users is not a table"),
        ('[users.olga]\n"*" = "root"', r"users.olga: \* = 'root' is not a right"),
        ('[users.olga]\n"*" = 3', r"users.olga: \* = 3 is not a right"),
        ('[users.olga]\n"*" = ["undo"]', r"users.olga: \* = \['undo'\] is not a right"),
    ],
)
def test_an_invalid_file_is_rejected_with_the_place_of_the_mistake(
    tmp_path: Path, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / "roles.toml").write_text(text)
    with pytest.raises(NotUsableError, match=why) as raised:
        read_roles(str(tmp_path / "roles.toml"))
    assert "view|launch|undo|admin" in raised.value.hint
