"""A private network for tests: machines are network namespaces, connected by a bridge without an uplink.

Needs root and Linux's `ip` and `nsenter`. Not here: what runs on the machines.
"""

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

# Reserved for benchmark tests (RFC 2544): never routed.
_NETWORK = "198.18.77"
# Waits for end of file, which comes when the test's process ends, even by SIGKILL.
_UNDERTAKER = (
    'cat >/dev/null; link=$1; shift; for each; do ip netns delete "$each"; done; ip link delete "$link"'
)


@dataclass(frozen=True)
class Lan:
    """`address`: this machine's own address. `addresses`: those of the other machines, by name."""

    address: str
    addresses: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)

    def on(self, machine: str, command: Sequence[str]) -> list[str]:
        """The command that runs `command` on a machine, or on this one if there are no others."""
        if machine not in self.namespaces:
            return list(command)
        return ["nsenter", f"--net=/run/netns/{self.namespaces[machine]}", "--", *command]


@contextmanager
def lan_of(machines: Sequence[str]) -> Iterator[Lan]:
    """Machines that reach this one and each other, removed at the end. Loopback and a warning if none can be made."""
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
        # The only route is the one to its neighbours.
        _ip("-n", namespace, "address", "add", f"{lan.addresses[name]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
