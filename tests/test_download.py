"""CIFAR-10 is found, checked and downloaded, from small web servers that this file runs.

The batches are a few kilobytes, so that no test needs the internet or the real data.
"""

import hashlib
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from torchvision.datasets import CIFAR10

from lab import download
from lab.checks import UserError

NAMES = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)] + ["batches.meta"]
PATIENCE_SECONDS = 0.3
MIN_SPEED = 1.5e5


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder; short limits; no proxy between this file and its servers."""
    for name in ("CIFAR10_DIR", "CIFAR10_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "__file__", str(tmp_path / "project/lab/download.py"))
    monkeypatch.setattr(download, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(download, "MIN_SPEED", MIN_SPEED)
    monkeypatch.setattr(download, "MIRRORS", ())
    return tmp_path / "project"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a small data set; the expected MD5s are set to those of its files."""
    batches = tmp_path / "own" / download.FOLDER
    batches.mkdir(parents=True)
    expected = []
    for name in NAMES:
        content = random.Random(name).randbytes(8_000)
        (batches / name).write_bytes(content)
        expected.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(CIFAR10, "train_list", expected[:5])
    monkeypatch.setattr(CIFAR10, "test_list", expected[5:6])
    monkeypatch.setattr(CIFAR10, "meta", dict(zip(("filename", "md5"), expected[6], strict=True)))
    return batches.parent


@pytest.fixture
def archive(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The archive of the small data set; the expected MD5 is set to its own."""
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(copy / download.FOLDER, download.FOLDER)
    content = (tmp_path / "archive.tar.gz").read_bytes()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
    return content


class Source(BaseHTTPRequestHandler):
    """Answers as the path says: /good, /slow, /silent and so on."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        content = self.server.archive
        self.server.asked.append(kind)
        if kind == "silent":
            self.server.closing.wait()
        elif kind == "missing":
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if kind == "good":
                self.wfile.write(content)
            elif kind == "truncated":
                self.wfile.write(content[:-1000])
            elif kind == "wrong":
                self.wfile.write(content[::-1])
            elif kind == "stalled":
                self.wfile.write(content[:1000])
                self.server.closing.wait()
            else:
                self.trickle(content, {"slow": 0.6, "slower": 4}[kind])

    def trickle(self, content: bytes, seconds: float) -> None:
        """Send all of content in so many seconds, in a hundred pieces."""
        size = -(-len(content) // 100)
        for start in range(0, len(content), size):
            try:
                self.wfile.write(content[start : start + size])
            except OSError:  # the client has gone
                return
            if self.server.closing.wait(seconds / 100):
                return

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(archive: bytes):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    server.archive, server.asked, server.closing = archive, [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def sources(server: ThreadingHTTPServer, monkeypatch) -> Callable[..., list[str]]:
    """A function that sets the sources by their kinds; the last one is the official host."""

    def set_sources(*kinds: str) -> list[str]:
        urls = [f"http://127.0.0.1:{server.server_port}/{kind}" for kind in kinds]
        monkeypatch.setattr(download, "MIRRORS", tuple(urls[:-1]))
        monkeypatch.setattr(CIFAR10, "url", urls[-1])
        return urls

    return set_sources


def passed_over(printed: str) -> list[str]:
    """The printed lines that name a source which was passed over."""
    return [line for line in printed.splitlines() if " is passed over: " in line]


def test_a_copy_has_torchvisions_seven_files_in_its_folder():
    assert [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"] == NAMES
    assert CIFAR10.meta["filename"] == NAMES[-1]
    assert CIFAR10.base_folder == download.FOLDER


def test_sound_copy_is_used_without_network_access(copy, project, sources, server, monkeypatch):
    sources("good")
    monkeypatch.setenv("CIFAR10_DIR", str(copy))
    assert download.cifar10() == download.data_folder() == copy
    assert not project.exists()
    monkeypatch.delenv("CIFAR10_DIR")
    shutil.copytree(copy, project / "data")
    assert download.cifar10() == download.data_folder() == project / "data"
    assert server.asked == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_broken_cifar10_dir_is_named_and_left_alone(
    name, damage, copy, project, sources, server, monkeypatch
):
    sources("good")
    path = copy / download.FOLDER / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "truncated" else b"\x00" + content[1:])
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    monkeypatch.setenv("CIFAR10_DIR", str(copy))
    with pytest.raises(UserError) as error:
        download.cifar10()
    word = "missing" if damage == "missing" else "damaged"
    assert f"{download.FOLDER}/{name} is {word}" in str(error.value)
    assert_names_every_way_out(str(error.value))
    assert str(copy) in str(error.value)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before
    assert not project.exists()
    assert server.asked == []


def assert_names_every_way_out(message: str) -> None:
    for words in ("CIFAR10_URL", "CIFAR10_DIR", "--quick"):
        assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("folder", ["nowhere", "cifar-10-batches-py", "cifar-10-batches-py/.."])
def test_wrong_cifar10_dir_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / download.FOLDER).mkdir()
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path / folder))
    with pytest.raises(UserError, match=r"CIFAR10_DIR=.*(there is no|missing).*unset CIFAR10_DIR"):
        download.cifar10()


def test_first_good_source_is_the_only_one_asked(sources, server, project, capsys):
    sources("good", "wrong", "missing")
    assert download.cifar10() == project / "data"
    assert not download.find_faults(project / "data")
    assert server.asked == ["good"]
    assert passed_over(capsys.readouterr().out) == []


def test_cifar10_url_is_asked_first(sources, server, monkeypatch):
    mirror, *_ = sources("good", "missing", "wrong")
    sources("missing", "wrong")
    monkeypatch.setenv("CIFAR10_URL", mirror)
    download.cifar10()
    assert server.asked == ["good"]


def test_sources_are_asked_in_order(sources, server, monkeypatch, capsys):
    mirror, *_ = sources("truncated", "missing")
    sources("missing", "wrong", "good")
    monkeypatch.setenv("CIFAR10_URL", mirror)
    download.cifar10()
    assert server.asked == ["truncated", "missing", "wrong", "good"]
    assert len(passed_over(capsys.readouterr().out)) == 3


REASONS = {
    "slow": "it gives only 0.",
    "silent": "timed out",
    "stalled": "timed out",
    "missing": "404",
    "truncated": "bytes have the wrong MD5",
    "wrong": "bytes have the wrong MD5",
}


@pytest.mark.parametrize("kind", REASONS)
def test_bad_source_is_passed_over_with_its_reason(kind, sources, server, project, capsys):
    url, _ = sources(kind, "good")
    begin = time.monotonic()
    download.cifar10()
    assert time.monotonic() - begin < 4 * PATIENCE_SECONDS + 1
    assert server.asked == [kind, "good"]
    (line,) = passed_over(capsys.readouterr().out)
    assert line.startswith(f"{url} is passed over: ")
    assert REASONS[kind] in line
    assert not download.find_faults(project / "data")


def test_host_that_cannot_be_reached_and_senseless_url_are_passed_over(
    sources, server, monkeypatch, capsys
):
    sources("good")
    monkeypatch.setattr(download, "MIRRORS", ("http://127.0.0.1:9/x",))  # nothing listens there
    monkeypatch.setenv("CIFAR10_URL", "no url at all")
    download.cifar10()
    assert server.asked == ["good"]
    printed = capsys.readouterr().out
    assert "no url at all is passed over: unknown url type" in printed
    assert "http://127.0.0.1:9/x is passed over: " in printed


def test_only_source_may_be_slow_and_shows_progress(sources, server, capsys):
    sources("missing", "slow")
    download.cifar10()
    assert server.asked == ["missing", "slow", "slow"]
    captured = capsys.readouterr()
    assert len(passed_over(captured.out)) == 2
    assert "100%" in captured.err


@pytest.mark.slow
def test_fastest_source_is_used_where_all_are_slow(sources, server, project, capsys):
    sources("slow", "slower")
    download.cifar10()
    assert server.asked == ["slow", "slower", "slow"]
    assert not download.find_faults(project / "data")
    assert len(passed_over(capsys.readouterr().out)) == 2


@pytest.mark.parametrize("kind", ["missing", "silent", "stalled", "truncated", "wrong"])
def test_without_a_good_source_every_way_out_is_named(kind, sources, server, project, capsys):
    sources("missing", kind)
    with pytest.raises(UserError) as error:
        download.cifar10()
    assert_names_every_way_out(str(error.value))
    assert server.asked == ["missing", kind]
    assert len(passed_over(capsys.readouterr().out)) == 2
    assert not (project / "data" / CIFAR10.filename).exists()


def test_folder_that_cannot_be_made_is_named(project):
    project.write_text("a file where a folder should be")
    with pytest.raises(UserError) as error:
        download.cifar10()
    assert str(project / "data") in str(error.value)
    assert_names_every_way_out(str(error.value))


def test_partial_download_never_counts(sources, server, archive, project):
    sources("good")
    (project / "data").mkdir(parents=True)
    for name in (CIFAR10.filename, "cifar10.part"):  # as an earlier process may have left them
        (project / "data" / name).write_bytes(archive[:1000])
    download.cifar10()
    assert server.asked == ["good"]
    assert (project / "data" / CIFAR10.filename).read_bytes() == archive


def test_damaged_batch_comes_from_the_archive_without_a_download(sources, server, project, capsys):
    sources("good")
    download.cifar10()
    batch = project / "data" / download.FOLDER / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-5])
    capsys.readouterr()
    download.cifar10()
    assert server.asked == ["good"]
    assert not download.find_faults(project / "data")
    printed = capsys.readouterr().out
    assert "data_batch_2 is damaged" in printed
    assert "http" not in printed


def test_second_process_waits_for_the_first(sources, server, copy, project, capsys):
    sources("good")
    locked = threading.Event()

    def other_process() -> None:
        with FileLock(project / "data" / ".lock"):
            locked.set()
            time.sleep(0.3)
            shutil.copytree(copy / download.FOLDER, project / "data" / download.FOLDER)

    other = threading.Thread(target=other_process)
    other.start()
    locked.wait()
    assert download.cifar10() == project / "data"
    other.join()
    assert server.asked == []
    assert "any other waits" in capsys.readouterr().out
