"""Starts a training: in one process, on --num-gpus, on several machines, or under torchrun."""

import argparse
import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from d2_isonet.utils.compat import create_local_process_group
from d2_isonet.utils.messages import UserError, quiet_interrupt, show

from .lifetime import end_with_parent
from .meeting import (
    MeetingError,
    Member,
    address_of,
    await_first_machine,
    interface_towards,
    is_lost_connection,
    join,
    open_store,
    reported_failure,
)
from .preemption import ENDED_OUTSIDE, StopRequest, end_at_once, exit_code_of, handled_signals
from .supervision import ProcessFailure, supervise, trace_file
from .torchrun import under_torchrun

_MOST_ON_A_CPU = 16  # processes, whatever the number of its cores: for tests on small machines


def run(main: Callable, args: argparse.Namespace) -> None:
    """Run `main(args)` in every process that `args` or torchrun ask for.

    Ends this process with one line, and exit code 1 or 2, if the processes cannot start, do not
    meet, lose each other, or if one of them fails.
    """
    # torchrun ends its processes in its own way
    handled = contextlib.nullcontext() if under_torchrun() else handled_signals(end_at_once)
    try:
        _check(args)
        with quiet_interrupt(f"interrupted {ENDED_OUTSIDE}"), handled:
            launch(
                main,
                max(1, args.num_gpus),  # 0 means the CPU
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
                timeout=timedelta(seconds=args.dist_timeout),
            )
    except UserError as error:
        show(f"error: {error}", to_stderr=True)
        _exit(2)
    except (MeetingError, ProcessFailure) as error:
        if str(error):  # otherwise the failed process has printed the reason
            show(f"error: {error}", to_stderr=True)
        _exit(getattr(error, "exit_code", 1))
    except SystemExit as end:
        _exit(_code_of(end))


def _exit(code: int) -> NoReturn:
    if under_torchrun() and dist.is_initialized():
        _end_process(code)
    sys.exit(code)


def _check(args: argparse.Namespace) -> None:
    gpus = torch.cuda.device_count()
    if under_torchrun():
        started = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if args.num_gpus not in (0, 1, started) or args.num_machines != 1:
            raise UserError(
                f"torchrun has started {started} processes on this machine",
                "leave out --num-gpus and --num-machines, or give them to torchrun "
                "(--nproc-per-node, --nnodes)",
            )
    else:
        started = args.num_gpus
    if 0 < gpus < started:
        raise UserError(
            f"{started} processes are asked for (--num-gpus, or torchrun's --nproc-per-node), but "
            f"this machine has {gpus} GPUs"
        )
    cores = os.cpu_count() or 1
    if gpus == 0 and started > max(_MOST_ON_A_CPU, cores):
        raise UserError(
            f"--num-gpus is {started}, but this machine has no GPU and {cores} CPU cores",
            f"on a CPU it is the number of processes: give at most {max(_MOST_ON_A_CPU, cores)}",
        )
    if not 0 <= args.machine_rank < max(1, args.num_machines):
        raise UserError(
            f"--machine-rank is {args.machine_rank}",
            f"with --num-machines {args.num_machines} it must be from 0 to {args.num_machines - 1}",
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--num-machines needs --dist-url tcp://HOST:PORT of the first machine")
    if args.dist_timeout <= 0:
        raise UserError(f"--dist-timeout is {args.dist_timeout:g}", "it must be positive (seconds)")


def launch(
    main: Callable,
    num_processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    timeout: timedelta = timedelta(minutes=30),
) -> None:
    """Run `main(*args)` in every process, on GPUs (NCCL) or on CPUs (gloo).

    Under torchrun this process is already one of them. It replaces detectron2's launcher, which
    refuses CPUs (v0.6) and lets the others hang if a process dies or does not start.

    Args:
        num_processes: on each machine.
        dist_url: tcp://HOST:PORT of the first machine; "auto" for a free port of a single machine.
        timeout: of the start and of every collective operation.

    Raises:
        UserError: dist_url has another form, or its port is taken.
        MeetingError: not all processes started, or, under torchrun, they lost each other.
        ProcessFailure: a process of this machine failed; the others were stopped.
    """
    if under_torchrun():
        _run_under_torchrun(main, args, timeout)
    elif num_processes * num_machines == 1:
        main(*args)
    else:
        first = Member(machine_rank * num_processes, num_machines * num_processes, 0, num_processes)
        address = None if num_machines == 1 else address_of(dist_url)
        _run_processes(main, args, first, address, timeout)


def _run_under_torchrun(main: Callable, args: tuple, timeout: timedelta) -> None:
    local = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if int(os.environ["WORLD_SIZE"]) > local[1]:
        _meet_on_the_interface_towards(os.environ.get("MASTER_ADDR", ""))
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    # The store may belong to torchrun's agent, which survives a restart of the group. It also
    # survives machines that join or leave, which do not count as a restart.
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    store = dist.PrefixStore(f"restart {count} of {world_size} processes", store)
    _run_member(main, args, Member(rank, world_size, *local), store, timeout)


def _run_processes(main, args, first: Member, address, timeout: timedelta) -> None:
    """Start the processes of this machine, `first` and its siblings, and supervise them."""
    if first.rank == 0:
        store = open_store(address, timeout)
        host, port = address or ("127.0.0.1", store.port)
    else:
        host, port = address
        await_first_machine(address, timeout)
        store = dist.TCPStore(host, port, is_master=False, timeout=timeout)
    if address:
        _meet_on_the_interface_towards(host)
    print(
        f"{first.local_size} of {first.world_size} processes start here and meet at "
        f"tcp://{host}:{port}; they wait {timeout.total_seconds():g} s for each other "
        "(--dist-timeout)",
        flush=True,
    )
    method = multiprocessing.get_start_method()
    with tempfile.TemporaryDirectory() as traces:
        arguments = (method, main, args, first, (host, port), timeout, traces)
        start = functools.partial(
            mp.start_processes, _spawned, arguments, nprocs=first.local_size, join=False
        )
        supervise(start, first, store, Path(traces))


def _meet_on_the_interface_towards(host: str) -> None:
    name = interface_towards(host)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _spawned(
    local_rank: int, method: str, main, args, first: Member, address, timeout: timedelta, traces
) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # like SIGTERM, until the training listens
    # otherwise the loader's processes would be spawned too, and each would import everything again
    multiprocessing.set_start_method(method, force=True)
    member = first.sibling(local_rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // first.local_size))
    host, port = address
    code = 0
    try:
        store = dist.TCPStore(host, port, is_master=False, timeout=timeout)
        _run_member(main, args, member, store, timeout)
    except SystemExit as end:
        code = _code_of(end)
    except Exception:
        trace_file(traces, local_rank).write_text(traceback.format_exc())
        code = 1
    _end_process(code)


def _code_of(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _end_process(code: int) -> NoReturn:
    """End a process of several: gloo's threads sometimes abort the usual end of Python."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run_member(main, args, member: Member, store: dist.Store, timeout: timedelta) -> None:
    end_with_parent()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(member.local_rank)
    with _explained_loss(member, store, timeout):
        join(store, member, "nccl" if on_gpu else "gloo", timeout)
        create_local_process_group(member.local_size)
        comm.synchronize()
        main(*args)
        dist.destroy_process_group()  # not after an error: it could wait forever


@contextlib.contextmanager
def _explained_loss(member: Member, store: dist.Store, timeout: timedelta) -> Iterator[None]:
    """Turn a collective that failed because others died into a MeetingError with the reason.

    After a signal that is no failure: the main process saves the training and ends first.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        if StopRequest.noted and member.rank:
            sys.exit(exit_code_of(StopRequest.noted))
        elsewhere = member.local_size < member.world_size and not under_torchrun()
        reason = (reported_failure(store) if elsewhere else "") or (
            f"{str(error).splitlines()[0]}. A process or machine died, or the network between them "
            f"is cut; they wait {timeout.total_seconds():g} s for each other (--dist-timeout)"
        )
        raise MeetingError(f"{member.name} lost the others: {reason}") from error
