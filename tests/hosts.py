"""Two hosts with a cable between them, as Linux's namespaces: each has its own network, name and mounts.

    with two_hosts() as (head, node):
        node.run(["ping", "-c1", head.address])

The file system is this machine's, so that both see the same folders until one of them mounts something over it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NETWORK = "10.77.0"
_SPACES = ("--net", "--uts", "--mount")


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
      name: which the other one knows.
      holder: number of the process that keeps the namespaces.
      address: in the network of the two.
    """

    name: str
    holder: int
    address: str

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """What runs this command there."""
        return ["nsenter", f"--target={self.holder}", *_SPACES, "--", *map(str, words)]

    def run(self, words: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "check": True} | options
        return subprocess.run(self.command(words), **options)

    @contextlib.contextmanager
    def running(self, words: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Killed at the end."""
        process = subprocess.Popen(self.command(words), text=True, **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def why_not() -> str:
    """Why this machine cannot be two; nothing where it can."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]:
        return f"there is no {missing[0]} here"
    if os.geteuid() != 0:
        return "network namespaces are root's"
    with contextlib.suppress(subprocess.CalledProcessError), two_hosts():
        return ""
    return "namespaces, or virtual cables between them, cannot be made here"


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """A head and a node.

    Raises:
      CalledProcessError: the system refuses.
    """
    addresses = {"head": f"{_NETWORK}.1", "node": f"{_NETWORK}.2"}
    with contextlib.ExitStack() as holders:
        table = Path(holders.enter_context(tempfile.TemporaryDirectory())) / "hosts"
        names = "".join(f"{address} {name}\n" for name, address in addresses.items())
        table.write_text("127.0.0.1 localhost\n" + names)
        begin = 'hostname "$1" && mount --bind "$2" /etc/hosts && echo ready && exec sleep infinity'
        hosts = []
        for name, address in addresses.items():
            words = ["unshare", *_SPACES, "sh", "-c", begin, "sh", name, str(table)]
            holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            holders.callback(_end, holder)
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise subprocess.CalledProcessError(holder.wait(), words)
            hosts.append(Host(name, holder.pid, address))
        head, node = hosts
        head.run(["ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(node.holder)])
        for host in hosts:
            host.run(["ip", "address", "add", f"{host.address}/24", "dev", "cable"])
            host.run(["ip", "link", "set", "cable", "up"])
            host.run(["ip", "link", "set", "lo", "up"])
        yield head, node


def _end(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
