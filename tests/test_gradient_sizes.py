"""Gradients as multiples of another network's, by hand."""

from lab.gradient_sizes import in_short, multiples, table


def test_sizes_of_gradients_are_told_as_multiples_of_the_baselines() -> None:
    """By hand: means over the seeds, then the lowest and the highest ratio of a weight tensor."""

    def watched(conv1: float, fc2: float) -> dict:
        sizes = {"mean": [conv1, 9.0, fc2, 0.0]}  # no ratio to what is zero
        windows = dict.fromkeys(("first_steps", "first_epochs"), sizes)
        names = ["conv1.weight", "conv1.bias", "fc2.weight", "fc1.weight"]
        return {"gradients": {"parameters": names} | windows}

    records = {
        "BaselineNet": [watched(1.0, 0.2), watched(3.0, 0.6)],
        "DropoutNet": [watched(4.0, 0.2), {"gradients": None}],
        "BatchNormNet": [{"gradients": None}],  # which diverged
    }
    for group in records.values():
        for record in group:
            if record["gradients"]:
                record["gradients"]["last_epochs"] = {"mean": [2.0, 9.0, 0.4, 0.0]}
    (found,) = multiples(records)
    assert found == (
        "DropoutNet",
        "BaselineNet",
        {
            "first 5 steps": {"conv1": 2.0, "fc2": 0.5},
            "first 5 epochs": {"conv1": 2.0, "fc2": 0.5},
            "last 5 epochs": {"conv1": 1.0, "fc2": 1.0},
        },
    )
    assert in_short(found) == (
        "DropoutNet's weight gradients, divided by BaselineNet's, are 0.5 to 2 in the first 5 "
        "steps, 0.5 to 2 in the first 5 epochs and 1 to 1 in the last 5 epochs, depending on the "
        "layer."
    )
    assert table([found])[0] == {
        "network": "DropoutNet, first 5 steps",
        "conv1": "2",
        "fc2": "0.5",
    }
    for group in records.values():
        group[:] = [{"gradients": None}]
    assert multiples(records) == []
