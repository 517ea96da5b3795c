"""Rendezvous of the processes through a TCP store on the first machine."""

import contextlib
import fcntl
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from d2_isonet.utils.messages import UserError

_FAILURE = "d2_isonet/failure"
_SIOCGIFADDR = 0x8915  # Linux's request for the address of an interface


class MeetingError(RuntimeError):
    """Not all processes started, or they lost each other; the message is for the user."""


@dataclass(frozen=True)
class Member:
    """One process of the training: its ranks, counted from 0, among all and on its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int

    @property
    def name(self) -> str:
        """The name in messages, such as "process 3 of 8 (machine 1)"."""
        return f"process {self.rank} of {self.world_size} (machine {self.rank // self.local_size})"

    def sibling(self, local_rank: int) -> "Member":
        """Another process of the same machine."""
        rank = self.rank - self.local_rank + local_rank
        return Member(rank, self.world_size, local_rank, self.local_size)


def address_of(dist_url: str) -> tuple[str, int]:
    """Split "tcp://host:1234" into ("host", 1234); raise UserError for any other form."""
    found = re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[^:/\s]+):(\d+)", dist_url)
    if not found or not 0 < int(found[2]) < 65536:
        raise UserError(
            f"--dist-url is {dist_url!r}",
            "it must be tcp://HOST:PORT of the first machine, with a port from 1 to 65535 that all "
            "machines can reach",
        )
    return found[1].strip("[]"), int(found[2])


def open_store(address: tuple[str, int] | None, timeout: timedelta) -> dist.TCPStore:
    """Open the store at `address` on all interfaces; None opens a free port for this machine.

    Raises:
        UserError: another program has the port.
    """
    host, port = address or ("127.0.0.1", 0)
    try:
        listener = socket.create_server(("" if address else host, port))
    except OSError as error:
        raise UserError(
            f"--dist-url: port {port} cannot be opened on this machine ({error.strerror})",
            "another training may have it: choose another port, the same for all machines",
        ) from error
    port = listener.getsockname()[1]
    return dist.TCPStore(
        host,
        port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def await_first_machine(address: tuple[str, int], timeout: timedelta) -> None:
    """Wait until a store listens at `address`; raise MeetingError if none does in time."""
    end = time.monotonic() + timeout.total_seconds()
    reason = "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection(address, timeout=min(left, 5)).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(left, 0.5))
    raise MeetingError(
        f"machine 0 could not be reached at tcp://{address[0]}:{address[1]} within "
        f"{timeout.total_seconds():g} s (--dist-timeout): {reason}. Was it started with "
        "--machine-rank 0 and the same --dist-url, and may its port be reached from here?"
    )


def interface_towards(host: str) -> str:
    """Name of the network interface whose address `host` sees; "" if it is unknown.

    gloo uses the interface of the machine's own name, often a loopback (Debian's 127.0.1.1).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
        except OSError:
            return ""
        address = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                reply = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:  # it has no IPv4 address
                continue
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return ""


def join(store: dist.Store, member: Member, backend: str, timeout: timedelta) -> None:
    """Form the process group when all processes have registered in `store`.

    Raises:
        MeetingError: some did not register within `timeout`; the message names them.
    """
    keys = [f"d2_isonet/joined/{rank}" for rank in range(member.world_size)]
    try:
        store.set(keys[member.rank], "")
        store.wait(keys, timeout)
    except dist.DistError as error:
        raise MeetingError(_who_is_missing(store, keys, member, timeout)) from error
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("d2_isonet/group", store),
        rank=member.rank,
        world_size=member.world_size,
        timeout=timeout,
    )


def _who_is_missing(store: dist.Store, keys: list[str], member: Member, timeout) -> str:
    within = f"within {timeout.total_seconds():g} s (--dist-timeout)"
    try:
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
    except dist.DistError:
        return f"{member.name} lost machine 0 while it waited for the others to start"
    machines = sorted({rank // member.local_size for rank in missing})
    return (
        f"{len(missing)} of {member.world_size} processes did not start {within}: those of machine "
        f"{', '.join(map(str, machines))}. Start the script there with its --machine-rank and "
        "the same --num-machines, --num-gpus and --dist-url"
    )


def report_failure(store: dist.Store, message: str) -> None:
    """Report to the other machines why this one stops; they may be unreachable already."""
    try:
        store.set(_FAILURE, message)
    except dist.DistError:
        return


def reported_failure(store: dist.Store, patience: float = 10.0) -> str:
    """The failure another machine reports within `patience` seconds; "" if none, or no store."""
    answer: list[str] = []

    def ask() -> None:
        with contextlib.suppress(dist.DistError):
            store.wait([_FAILURE], timedelta(seconds=patience))
            answer.append(store.get(_FAILURE).decode())

    # In a thread that can be abandoned: if the cable is cut, the store waits after its own time-out
    # until TCP gives up (15 minutes) for the first machine's answer to the end of the wait.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience + 1)
    return answer[0] if answer else ""


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because another process ended or was unreachable."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)
