"""Finding, checking and fetching CIFAR-10, from a mirror that this file runs."""

import functools
import shutil
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import cifar10_root
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5

import download
from errors import UserError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.delenv("CIFAR10_URL", raising=False)


@pytest.fixture
def copy(cifar10, tmp_path, monkeypatch):
    """A folder with a copy of the batches. The real data's folder is looked up before the patch."""
    shutil.copytree(REAL / download.FOLDER, tmp_path / "own" / download.FOLDER)
    return tmp_path / "own"


REAL = cifar10_root()


def test_the_md5s_are_torchvisions():
    official = [*CIFAR10.train_list, *CIFAR10.test_list]
    official.append([CIFAR10.meta["filename"], CIFAR10.meta["md5"]])
    assert [list(item) for item in download.MD5.items()] == official
    assert CIFAR10.base_folder == download.FOLDER


def test_an_own_copy_is_used_where_it_is(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(copy))
    assert download.cifar10(tmp_path / "data") == copy / download.FOLDER
    assert not (tmp_path / "data").exists()
    monkeypatch.delenv("CIFAR10_DIR")
    assert download.cifar10(copy) == copy / download.FOLDER


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_broken_own_copy_is_named_and_left_alone(name, damage, copy, tmp_path, monkeypatch):
    path = copy / download.FOLDER / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "truncated" else b"\x00" + content[1:])
    monkeypatch.setenv("CIFAR10_DIR", str(copy))
    with pytest.raises(UserError) as error:
        download.cifar10(tmp_path / "data")
    word = "missing" if damage == "missing" else "damaged"
    assert f"{download.FOLDER}/{name} is {word}" in str(error.value)
    assert str(copy) in str(error.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("folder", ["nowhere", "", download.FOLDER])
def test_a_wrong_folder_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / download.FOLDER).mkdir()
    wrong = tmp_path / folder if folder else tmp_path / download.FOLDER / ".."
    monkeypatch.setenv("CIFAR10_DIR", str(wrong))
    with pytest.raises(UserError, match=r"CIFAR10_DIR=.*(there is no|missing).*unset CIFAR10_DIR"):
        download.cifar10(tmp_path / "data")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that a web server on this machine serves, and CIFAR10_URL names a file in it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CIFAR10_URL", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
    yield folder
    server.shutdown()


def test_a_mirror_without_the_file_names_every_way_out(mirror, tmp_path):
    with pytest.raises(UserError) as error:
        download.cifar10(tmp_path / "data")
    message = str(error.value)
    for words in ("http://127.0.0.1", "404", "CIFAR10_URL", "CIFAR10_DIR", "--quick"):
        assert words in message
    assert "\n" not in message


def test_no_network_names_every_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_URL", "http://127.0.0.1:9/cifar.tar.gz")  # nobody listens
    with pytest.raises(UserError, match=r"could not be fetched.*CIFAR10_DIR.*--quick"):
        download.cifar10(tmp_path / "data")


def test_a_wrong_archive_is_refused(mirror, tmp_path):
    (mirror / "cifar.tar.gz").write_bytes(b"a page that says the file has moved")
    with pytest.raises(UserError, match="could not be fetched"):
        download.cifar10(tmp_path / "data")


def test_a_download_that_was_cut_short_breaks_nothing(mirror, copy, tmp_path, monkeypatch, capsys):
    served = mirror / "cifar.tar.gz"
    with tarfile.open(served, "w:gz", compresslevel=1) as tar:
        tar.add(copy / download.FOLDER, download.FOLDER)
    monkeypatch.setattr(CIFAR10, "tgz_md5", calculate_md5(str(served)))  # for the official one
    root = tmp_path / "data"
    root.mkdir()
    archive = root / CIFAR10.filename
    archive.write_bytes(served.read_bytes()[:1_000_000])
    assert download.cifar10(root) == root / download.FOLDER
    assert f"{archive} is incomplete" in capsys.readouterr().out

    # now a batch is damaged: the archive is there, so nothing need be fetched again
    served.unlink()
    batch = root / download.FOLDER / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-5])
    assert download.cifar10(root) == root / download.FOLDER
    printed = capsys.readouterr().out
    assert "data_batch_2 is damaged" in printed
    assert "downloading" not in printed
    assert not download.find_faults(root)
