"""Learning-rate schedules: plain functions of the epoch, counted from 0."""


def inverse_time(initial: float, decay_rate: float, epoch: int) -> float:
    """initial / (1 + decay_rate · epoch)."""
    return initial / (1 + decay_rate * epoch)


def step_decay(initial: float, factor: float, every: int, epoch: int) -> float:
    """initial, multiplied by factor after each block of `every` epochs."""
    return initial * factor ** (epoch // every)


def exponential_decay(initial: float, factor: float, epoch: int) -> float:
    """initial, multiplied by factor after every epoch."""
    return initial * factor**epoch
