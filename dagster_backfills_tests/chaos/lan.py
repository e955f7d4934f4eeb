"""A network of this test's own: machines are network namespaces, joined by a bridge that leads nowhere else.

Needs root and Linux's `ip` and `nsenter`. Not here: what runs on the machines.
"""

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

# Set aside for tests between machines (RFC 2544): routed nowhere.
_NETWORK = "198.18.77"
# Waits for the end of its input, which comes when the test's process ends, even by SIGKILL.
_UNDERTAKER = (
    'cat >/dev/null; link=$1; shift; for each; do ip netns delete "$each"; done; ip link delete "$link"'
)


@dataclass(frozen=True)
class Lan:
    """`address` is this machine's own in it; `addresses` those of the others by name."""

    address: str
    addresses: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)

    def on(self, machine: str, command: Sequence[str]) -> list[str]:
        """The command, to be run on a machine; on this one where there are no others."""
        if machine not in self.namespaces:
            return list(command)
        return ["nsenter", f"--net=/run/netns/{self.namespaces[machine]}", "--", *command]


@contextmanager
def lan_of(machines: Sequence[str]) -> Iterator[Lan]:
    """Machines that reach this one and each other, gone at the end; loopback and a warning where none can be made."""
    link = f"bf{os.getpid()}"
    lan = Lan(
        f"{_NETWORK}.1",
        {name: f"{_NETWORK}.{n}" for n, name in enumerate(machines, 11)},
        {name: f"{link}-{name}" for name in machines},
    )
    reason = _why_not()
    undertaker = None
    if not reason:
        command = ["sh", "-c", _UNDERTAKER, "undertaker", link, *lan.namespaces.values()]
        undertaker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            _build(lan, link)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip()
    if reason:
        warnings.warn(f"All workers are on this machine's own network: {reason}", stacklevel=2)
        lan = Lan("127.0.0.1")
    try:
        yield lan
    finally:
        if undertaker:
            undertaker.communicate()


def _why_not() -> str:
    missing = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "only root may make network namespaces"


def _build(lan: Lan, link: str) -> None:
    _ip("link", "add", link, "type", "bridge")
    _ip("address", "add", f"{lan.address}/24", "dev", link)
    _ip("link", "set", link, "up")
    for number, (name, namespace) in enumerate(lan.namespaces.items()):
        here = f"{link}v{number}"
        _ip("netns", "add", namespace)
        _ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", here, "master", link, "up")
        # No route but the one to its neighbours.
        _ip("-n", namespace, "address", "add", f"{lan.addresses[name]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
