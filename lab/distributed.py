"""Sharing a sweep between processes started by torchrun, on one machine or on many.

    torchrun --nproc-per-node=8 exp1_lr.py

Each process has a GPU (or, without any, a core) of its own and begins with its share of the runs.
The processes send each other nothing: who trains what, and what is finished, they read in the
results folder, which all machines must share.
"""

import os
import socket


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes share the sweep."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_size() -> int:
    """How many processes share the sweep on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size()))


def place() -> str:
    """Where an error happened, to be put before it: empty where there is one process only."""
    return f"process {rank()} on {socket.gethostname()}: " if size() > 1 else ""
