"""The lab carries out what a script asks for, keeps it, and draws it.

A script needs run, from_seeds and Experiment (see exp1_lr.py). load_network gives the network of a
finished run, load_data a data set.
"""

from lab.checks import UserError
from lab.experiment import Experiment, Groups, Record, Records, from_seeds, run
from lab.sweep import load_data
from lab.trained import load_network

__all__ = [
    "Experiment",
    "Groups",
    "Record",
    "Records",
    "UserError",
    "from_seeds",
    "load_data",
    "load_network",
    "run",
]
