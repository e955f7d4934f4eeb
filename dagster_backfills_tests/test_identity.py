"""The user of a request, from its headers and address."""

import os
import pwd
import socket

import pytest

from dagster_backfills.identity import ForgedError, Identity, identify, system_user

SECRET = "s3cret"
LOCAL = {"host": "localhost:3000"}


def test_user_and_groups_are_read_from_the_headers_only_with_the_proxys_secret() -> None:
    given = {"x-proxy-secret": SECRET, "x-forwarded-user": "olga", "x-forwarded-groups": "a, b,,"}
    assert identify(given, SECRET, "10.0.0.9") == Identity("olga", ("a", "b"))
    for forged in ({**given, "x-proxy-secret": "guess"}, {"x-forwarded-user": "olga"}, {}):
        with pytest.raises(ForgedError, match="did not come through the proxy"):
            identify(forged, SECRET, "127.0.0.1")


def test_a_request_without_a_user_name_from_the_proxy_is_refused() -> None:
    with pytest.raises(ForgedError, match="sent no user name"):
        identify({"x-proxy-secret": SECRET, "x-forwarded-user": " "}, SECRET, "10.0.0.9")


def test_user_names_in_headers_are_decoded_as_utf_8() -> None:
    sent = "Zoë Łuk".encode().decode("latin-1")  # as servers decode headers
    assert identify({"x-proxy-secret": SECRET, "x-forwarded-user": sent}, SECRET, None).user == "Zoë Łuk"


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "[::1]:3000"])
def test_without_a_proxy_a_local_request_is_the_systems_user(host: str) -> None:
    assert identify({"host": host}, "", "127.0.0.1") == Identity(system_user())


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        (LOCAL, "192.0.2.7"),
        (LOCAL, None),
        (
            {"host": "evil.example:3000"},
            "127.0.0.1",
        ),  # a host name that a website had pointed at this machine
        ({**LOCAL, "x-forwarded-for": "192.0.2.7"}, "127.0.0.1"),
        ({**LOCAL, "x-forwarded-user": "olga"}, "127.0.0.1"),
        ({**LOCAL, "x-proxy-secret": ""} | {"x-proxy-secret": "x"}, "127.0.0.1"),
    ],
)
def test_without_a_proxy_any_other_request_is_refused(headers: dict[str, str], client: str | None) -> None:
    with pytest.raises(ForgedError):
        identify(headers, "", client)


def test_environment_variables_do_not_change_the_systems_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert system_user() == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
