"""Sharing a sweep between processes started by torchrun, on one machine or on many.

    torchrun --nproc-per-node=8 exp1_lr.py

Each process has a GPU (or, without any, a core) of its own, trains its share of the runs, and
leaves them in the results folder, which all machines must share. What travels between processes
is small: which runs are left, and what went wrong. So it goes from CPU to CPU, by gloo, on machines
with GPUs too; NCCL would have nothing to do, as no run has anything to send to another GPU.

Without torchrun every function here answers for the only process there is.
"""

import atexit
import functools
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from train import UserError

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM)
PATIENCE = timedelta(days=365)  # a process waits for the others' shares however long they take


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes share the sweep."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int | None:
    """The number of this process on its machine; None where it is the only process there is."""
    return int(os.environ.get("LOCAL_RANK", 0)) if size() > 1 else None


def share(items: Sequence[T]) -> list[T]:
    """What falls to this process: every size()-th item, so that all have about as many."""
    return list(items[rank() :: size()])


def on_first(function: Callable[[], T]) -> T:
    """Call the function on the first process alone; what it returns, on all.

    Raises UserError on all where it does on the first.
    """
    if size() == 1:
        return function()
    value, error = _attempt(function) if rank() == 0 else (None, None)
    value, error = _gather((value, error))[0]
    if error:
        raise UserError(error if rank() == 0 else "")
    return value


def on_all(function: Callable[[], T]) -> T:
    """Call the function on every process and wait for all; what it returned on this one.

    Raises UserError on all where it does on any, naming the processes unless all say the same.
    """
    if size() == 1:
        return function()
    value, error = _attempt(function)
    where = f"process {rank()} on {socket.gethostname()}"
    errors = dict(_gather((where, error)))
    said = [f"{place}: {error}" for place, error in errors.items() if error]
    if said:
        words = error if len(set(errors.values())) == 1 else "; ".join(said)
        raise UserError(words if rank() == 0 else "")
    return value


def known_to_any(values: Sequence[T | None]) -> list[T | None]:
    """For each place the value of the first process that has one there.

    For what is read from the shared folder, where a new file may be seen by some before others.
    """
    if size() == 1:
        return list(values)
    places = zip(*_gather(list(values)), strict=True)
    return [next((value for value in place if value is not None), None) for place in places]


def _attempt(function: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return function(), None
    except UserError as error:
        return None, str(error)


def _gather(item: Any) -> list[Any]:
    """The item of every process, in the order of their ranks.

    Raises UserError where another process has died or cannot be reached.
    """
    import torch.distributed as dist

    items = [None] * size()
    # all is written by now, and torch would not let Python answer a signal: so that waiting can end
    answers = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    try:
        _join()
        dist.all_gather_object(items, item)
    except RuntimeError as error:
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise UserError(
            f"process {rank()}: another process of this sweep has died or cannot be reached "
            f"({reason}); what is finished is kept: start again to go on"
        ) from None
    finally:
        for number, answer in answers.items():
            signal.signal(number, answer)
    return items


@functools.cache
def _join() -> None:
    """Join the other processes, once; torchrun has said in the environment where they are."""
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)  # its threads would abort a process that just ends
