"""Where the processes of a training meet: a store that the first machine keeps for all of them."""

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
_SIOCGIFADDR = 0x8915  # Linux: "give me the address of this interface"


class MeetingError(RuntimeError):
    """The processes did not all meet, or lost each other; the message is for the user."""


@dataclass(frozen=True)
class Member:
    """One process of the training: its numbers from 0, among all and on its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int

    @property
    def name(self) -> str:
        """ "process 3 of 8 (machine 1)", as messages say it."""
        return f"process {self.rank} of {self.world_size} (machine {self.rank // self.local_size})"

    def sibling(self, local_rank: int) -> "Member":
        """Another process of the same machine."""
        rank = self.rank - self.local_rank + local_rank
        return Member(rank, self.world_size, local_rank, self.local_size)


def address_of(dist_url: str) -> tuple[str, int]:
    """("host", 1234) of "tcp://host:1234"; raises UserError for anything else."""
    found = re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[^:/\s]+):(\d+)", dist_url)
    if not found or not 0 < int(found[2]) < 65536:
        raise UserError(
            f"--dist-url is {dist_url!r}",
            "it must be tcp://HOST:PORT of the first machine, with a "
            "port from 1 to 65535 that all machines can reach",
        )
    return found[1].strip("[]"), int(found[2])


def open_store(address: tuple[str, int] | None, timeout: timedelta) -> dist.TCPStore:
    """Keep the store at `address`, for all interfaces; None: a free port for this machine alone.

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
    """Return when somebody listens at `address`; raise MeetingError when nobody did in time."""
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
    """Name of the network interface whose address others at `host` see; "" where it is unknown.

    gloo takes that of the machine's own name, which often is a loopback (Debian's 127.0.1.1).
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
    """Form the process group as soon as all have come to `store`.

    Raises:
        MeetingError: some did not come within `timeout`; it names them.
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


def tell_failure(store: dist.Store, message: str) -> None:
    """Let the other machines know why this one stops; they may be out of reach already."""
    try:
        store.set(_FAILURE, message)
    except dist.DistError:
        return


def told_failure(store: dist.Store, patience: float = 10.0) -> str:
    """What a machine has told, "" if none does within `patience` seconds or the store is gone."""
    answer: list[str] = []

    def ask() -> None:
        with contextlib.suppress(dist.DistError):
            store.wait([_FAILURE], timedelta(seconds=patience))
            answer.append(store.get(_FAILURE).decode())

    # In a thread that may be left behind: over a cut cable the store waits, after its own time-out,
    # for the first machine to confirm that it waits no longer, as long as TCP does (15 minutes).
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience + 1)
    return answer[0] if answer else ""


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because another process ended or could not be reached."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)
