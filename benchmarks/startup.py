"""How long does a script take from the command to its first training step?

    python benchmarks/startup.py        # writes benchmarks/startup.json

Starts exp1_lr.py in a copy of the project, on a terminal of its own, until the progress bar shows,
which is when the first step is about to run; then stops it. The first start, which finds a cold
cache, is not counted. Needs Linux or macOS, and CIFAR-10 in CIFAR10_DIR or data/.
"""

import json
import os
import platform
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STARTS = 5


def seconds_to_first_step(folder: Path) -> float:
    """From the command to the progress bar, which shows with the first step."""
    terminal, end = pty.openpty()
    started = time.perf_counter()
    environment = {"CIFAR10_DIR": str(ROOT / "data"), **os.environ}
    process = subprocess.Popen(
        [sys.executable, "exp1_lr.py"], cwd=folder, env=environment, stdout=end, stderr=end
    )
    os.close(end)
    seen = b""
    while b" epochs [" not in seen:
        seen += os.read(terminal, 4096)
    seconds = time.perf_counter() - started
    process.terminate()
    process.wait()
    os.close(terminal)
    return seconds


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from store import device_name

    with tempfile.TemporaryDirectory() as folder:
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        seconds = [seconds_to_first_step(Path(folder)) for _ in range(1 + STARTS)][1:]
    result = {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "cores": os.cpu_count(),
        "device": device_name("cpu"),
        "python": platform.python_version(),
    }
    (ROOT / "benchmarks" / "startup.json").write_text(json.dumps(result, indent=1))
    print(f"first training step after {result['median']:.1f} s (median of {STARTS} starts)")


if __name__ == "__main__":
    main()
