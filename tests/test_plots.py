"""The command that redraws: what is yours or a folder, from summaries alone, and --errors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Lab

import plots

Plot = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plot(a_lab: Lab, capsys: pytest.CaptureFixture[str]) -> Plot:
    """A function that runs plots.py in a lab; its exit status and what it prints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        a_lab.monkeypatch.setattr("sys.argv", ["plots.py", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            plots.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(plot: Plot) -> Callable[..., str]:
    """A function that gives the one line of an error that a user can mend."""

    def run(*arguments: object) -> str:
        status, _, err = plot(*arguments)
        assert status == 2
        (line,) = err.splitlines()
        return line

    return run


@pytest.mark.slow
def test_figures_and_page_are_redrawn_from_summaries_alone(
    finished: Lab, rehearsed: Path, plot: Plot
) -> None:
    root = finished.root / "quick"
    for path in [*root.glob("*/*.png"), root / "README.md"]:
        path.unlink()
    for folder in ("runs", "checkpoints"):
        shutil.rmtree(root / folder)
    status, out, _ = plot(root)
    assert status == 0
    figures = list(rehearsed.glob("quick/exp1_lr/*.png"))
    assert figures
    for path in figures:
        assert (root / "exp1_lr" / path.name).read_bytes() == path.read_bytes()
        assert path.name in out
    assert (root / "README.md").read_bytes() == (rehearsed / "quick" / "README.md").read_bytes()
    assert str(root / "README.md") in out


def test_without_a_folder_it_redraws_what_is_yours(
    finished: Lab, rehearsed: Path, plot: Plot, no_figures: None
) -> None:
    """Rehearsals are another folder's."""
    shutil.copytree(rehearsed / "quick" / "exp1_lr", finished.root / "exp1_lr")
    status, out, _ = plot()
    assert status == 0
    assert str(finished.root / "exp1_lr") in out
    assert "quick" not in out
    assert (finished.root / "README.md").exists()


def test_no_results_say_what_to_run(a_lab: Lab, refused: Callable[..., str]) -> None:
    assert refused().endswith("yet: run an experiment first")


@pytest.mark.slow
def test_damaged_summary_is_named_and_all_others_are_drawn(finished: Lab, plot: Plot) -> None:
    root = finished.root / "quick"
    (root / "another").mkdir()
    path = root / "another" / "summary.json"
    path.write_text('{"groups": 5, "experiment": "exp1_lr"}')
    status, out, err = plot(root)
    assert status == 2
    (line,) = err.splitlines()
    assert f"{path} is damaged" in line
    assert str(root / "exp1_lr") in out
    page = (root / "README.md").read_text()
    assert "1.1 learning rates" in page
    assert "damaged" in page


@pytest.mark.slow
def test_errors_of_any_finished_run_are_drawn(finished: Lab, plot: Plot) -> None:
    """A run that is not the best, by a part of its name and by its path."""
    root = finished.root / "quick"
    path = next(root.glob("runs/*lr=0.05_seed=2*.json"))
    before = {file: file.read_bytes() for file in root.glob("*/*") if file.is_file()}
    finished.monkeypatch.setattr("lab.experiment.PUBLISHED", finished.root / "published")
    status, out, err = plot("--errors", "lr=0.05_seed=2")
    assert status == 0, err
    figures = [root / "errors" / f"{path.stem}_{name}.png" for name in ("confusion", "mistakes")]
    assert out.split() == [str(figure) for figure in figures]
    drawn = [figure.read_bytes() for figure in figures]
    assert all(content.startswith(b"\x89PNG") for content in drawn)
    assert plot("--errors", path)[1] == out
    assert [figure.read_bytes() for figure in figures] == drawn
    after = {file: file.read_bytes() for file in before}
    assert after == before


def test_errors_of_a_published_run_are_drawn_into_your_own_folder(
    finished: Lab, plot: Plot, no_figures: None
) -> None:
    published = finished.root / "published"
    finished.monkeypatch.setattr("lab.experiment.PUBLISHED", published)
    (finished.root / "quick").rename(published)
    folders = []
    finished.monkeypatch.setattr(
        "lab.figures.save", lambda found, folder: folders.append(folder) or []
    )
    assert plot("--errors", "lr=0.05_seed=2")[0] == 0
    assert folders == [finished.root / "errors"]


def test_errors_of_no_run_or_of_several_are_refused(
    finished: Lab, refused: Callable[..., str]
) -> None:
    finished.monkeypatch.setattr("lab.experiment.PUBLISHED", finished.root / "published")
    root = finished.root / "quick"
    names = [path.name for path in root.glob("runs/*.json")]
    line = refused("--errors", "nonsense")
    assert "'nonsense'" in line
    line = refused("--errors", "seed=2")
    assert "2 finished runs" in line
    assert [f"quick/runs/{name}" in line for name in names] == ["seed=2" in x for x in names]


def test_errors_of_a_diverged_or_damaged_run_are_refused(
    finished: Lab, refused: Callable[..., str]
) -> None:
    root = finished.root / "quick"
    path = next(root.glob("runs/*lr=0.05_seed=2*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"diverged_at_epoch": 1, "report": None}))
    assert "diverged" in refused("--errors", path.name)
    del record["confusion_matrix"]
    path.write_text(json.dumps(record))
    assert "damaged (it has no confusion_matrix)" in refused("--errors", path.name)
    path.write_text(path.read_text()[:300])
    assert "is gone or damaged" in refused("--errors", path.name)


@pytest.mark.slow
def test_errors_without_the_images_are_the_confusion_matrix_alone(
    finished: Lab, plot: Plot, tmp_path: Path
) -> None:
    path = next((finished.root / "quick").glob("runs/*lr=0.05_seed=2*.json"))
    record = json.loads(path.read_text())
    del record["run"]["dataset"]  # as a run on CIFAR-10 has it
    path.write_text(json.dumps(record))
    finished.monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    status, out, _ = plot("--errors", path.name)
    assert status == 0
    assert f"{path.stem}_confusion.png" in out
    assert "_mistakes.png" not in out


def test_help_tells_folder_and_errors(plot: Plot) -> None:
    status, out, _ = plot("--help")
    assert status == 0
    assert "--errors NAME" in out
    assert "folder" in out
