"""Where CIFAR-10 lies on disk: found, checked against its MD5s, and downloaded if it must be."""

import hashlib
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from errors import UserError

FOLDER = "cifar-10-batches-py"
TRAINING_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
META_FILE = "batches.meta"
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
STALL_SECONDS = 60  # a host that sends nothing for this long has failed
REHEARSE = "rehearse without CIFAR-10, as in: python exp1_lr.py --quick"


def cifar10(default: Path) -> Path:
    """The folder that holds CIFAR-10's batches, every one of them checked.

    Looks in CIFAR10_DIR where that is set, else in default, and only there downloads what is
    missing or damaged, from CIFAR10_URL or the official host.

    Raises UserError, with the file and the remedy, where there is no sound copy to be had.
    """
    folder = root(default)
    try:
        faults = find_faults(folder)
        if faults and folder != default:
            raise UserError(
                f"CIFAR10_DIR={folder}: {faults[0]}; name the folder that holds a complete "
                f"{FOLDER}/, or unset CIFAR10_DIR to download CIFAR-10, or {REHEARSE}"
            )
        if faults:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock")  # two scripts started together download once
            try:
                lock.acquire(blocking=False)
            except Timeout:
                print(
                    f"waiting for another process that fetches CIFAR-10 into {folder}", flush=True
                )
                lock.acquire()
            try:
                if faults := find_faults(folder):
                    fetch(folder, faults[0])
            finally:
                lock.release()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; {remedies()}") from None
    return folder / FOLDER


def root(default: Path) -> Path:
    """The folder that should hold cifar-10-batches-py: CIFAR10_DIR if that is set, else default."""
    return Path(os.environ.get("CIFAR10_DIR") or default)


def remedies() -> str:
    """Every way to go on without the download."""
    return (
        "set CIFAR10_URL to a mirror of cifar-10-python.tar.gz, or CIFAR10_DIR to the folder that "
        f"holds your own {FOLDER}/, or {REHEARSE}"
    )


def find_faults(root: Path) -> list[str]:
    """What is wrong with the copy under root, a phrase a file; empty where it is sound."""
    if not (root / FOLDER).is_dir():
        return [f"there is no {FOLDER}/ in it"]
    faults = []
    for name, md5 in MD5.items():
        path = root / FOLDER / name
        if not path.is_file():
            faults.append(f"{FOLDER}/{name} is missing")
        elif hashlib.md5(path.read_bytes()).hexdigest() != md5:
            faults.append(f"{FOLDER}/{name} is damaged (its MD5 is not the official one)")
    return faults


def fetch(root: Path, fault: str) -> None:
    """Download and unpack CIFAR-10 into root through torchvision, with progress and MD5 check."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    url = os.environ.get("CIFAR10_URL") or CIFAR10.url
    archive = root / CIFAR10.filename
    print(f"{root}: {fault}")
    if not check_integrity(str(archive), CIFAR10.tgz_md5):
        if archive.exists():
            print(f"{archive} is incomplete or damaged and is fetched again")
        print(
            f"downloading 170 MB from {url}; if that is slow, stop it and {remedies()}", flush=True
        )
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        download_and_extract_archive(url, str(root), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
    except Exception as error:  # urllib, tarfile, gzip and torchvision each raise their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"CIFAR-10 could not be fetched from {url}: {reason}; {remedies()}"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
    if faults := find_faults(root):
        raise UserError(f"{root}: {faults[0]} after unpacking {archive}; {remedies()}")
