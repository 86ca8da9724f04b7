"""Locations on a disk and in a bucket: the same rules, against a real S3 server on loopback."""

import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
from object_store import CREDENTIALS, free_port, object_store

from thermal_search import bucket
from thermal_search.errors import StorageError
from thermal_search.storage import Location


@pytest.fixture(scope="module")
def store():
    with object_store() as server:
        Location.of(server.uri("bucket")).make_folder()
        yield server


@pytest.fixture(params=["disk", "bucket"])
def folder(request, store, tmp_path):
    if request.param == "disk":
        return Location.of(tmp_path / "folder")
    return Location.of(store.uri(f"bucket/{tmp_path.name}"))


def test_written_files_are_read_listed_and_deleted(folder):
    (folder / "a" / "one.txt").write_text("eins")
    (folder / "a" / "two.bin").write_bytes(b"\x00\x02")
    (folder / "three").write_text("drei")

    assert (folder / "a/one.txt").read_text() == "eins"
    assert (folder / "a" / "two.bin").read_bytes() == b"\x00\x02"
    assert [path.name for path in folder.list()] == ["a", "three"]
    assert [path.name for path in folder.list(deep=True)] == ["one.txt", "two.bin", "three"]
    assert (folder / "a").exists()
    assert not (folder / "a").is_file()
    assert (folder / "three").is_file()
    (folder / "a").delete()
    (folder / "absent").delete()
    assert [path.name for path in folder.list(deep=True)] == ["three"]
    assert not (folder / "a").exists()
    assert (folder / "absent").list() == []


def test_growing_file_is_read_as_of_one_moment(folder):
    file, stop = folder / "file", threading.Event()
    file.write_bytes(b"<>")

    def grow():
        for length in range(1, 10_000):
            if stop.wait(0.02):
                return
            file.write_bytes(b"<" + length * b"-" + b">")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        contents = [file.read_bytes() for _ in range(60)]
    finally:
        stop.set()
        writer.join()
    assert all(content.endswith(b">") for content in contents)


def test_missing_file_is_file_not_found(folder):
    with pytest.raises(FileNotFoundError):
        (folder / "absent").read_text()
    with pytest.raises(FileNotFoundError), (folder / "absent").open_input():
        pass


def test_failed_write_leaves_the_old_file(folder):
    target = folder / "file"
    target.write_text("old")

    def fail():
        with target.open_output() as file:
            file.write(b"new" * 10**7)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()

    assert target.read_text() == "old"
    assert [path.name for path in folder.list(deep=True)] == ["file"]


def test_large_files_are_read_completely_and_are_seekable(folder):
    content = os.urandom(12 * 2**20)
    with (folder / "large").open_output() as file:
        file.write(content)
    with (folder / "large").open_input() as file:
        file.seek(5)
        assert file.read(10) == content[5:15]
        file.seek(0)
        assert file.read() == content


def test_pickled_location_holds_neither_store_nor_secret(folder):
    (folder / "x").write_text("x")
    pickled = pickle.dumps(folder / "x")

    assert len(pickled) < 500
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    assert pickle.loads(pickled).read_text() == "x"
    assert Location.of((folder / "x").uri) == (folder / "x").absolute()


def test_paths_below_a_bucket_keep_its_options():
    root = Location.of("s3://bucket/a?scheme=http&endpoint_override=127.0.0.1:1")

    assert root / "b" == Location.of("s3://bucket/a/b/?endpoint_override=127.0.0.1:1&scheme=http")
    assert str(root / "b") == "s3://bucket/a/b?endpoint_override=127.0.0.1:1&scheme=http"
    assert (root / "b").parent == root
    assert (root / "b").name == "b"
    assert Location.of("gs://bucket/x/y").path == "bucket/x/y"


def test_local_addresses_are_paths(tmp_path):
    location = Location.of((tmp_path / "with space").as_uri())

    assert location.local == tmp_path / "with space"
    assert Location.of("relative/file").local.as_posix() == "relative/file"


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "100%", "%41", "x&y=z", "ü", "a+b"])
def test_any_name_is_the_same_after_it_was_written_as_an_address(name, tmp_path):
    for folder in (Location("bucket/x", "s3", "region=eu-central-1"), Location(str(tmp_path))):
        assert Location.of((folder / name).uri) == folder / name
        assert Location.of(str(folder / name)) == folder / name
    assert Location.of("s3://bucket/run#1").path == "bucket/run#1"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://key:geheim@bucket/x", "must not hold a user or a password"),
        ("s3://geheim@bucket/x", "must not hold a user or a password"),
        ("s3://bucket/x?secret_key=geheim", "must not have secret_key="),
        ("s3:///x", "needs a bucket"),
        ("s3://bucket/../geheim", "must not hold '..'"),
        ("s3://bucket#x", "needs a bucket"),
        ("file:///x?y", "must have the form file:///folder"),
        ("file://folder/x", "must have the form file:///folder"),
        ("ftp://host/x", "ftp:// is not a known storage"),
        ("s3://bucket:geheim/x", "cannot be understood"),
    ],
)
def test_invalid_address_is_one_sentence_without_its_secret(address, sentence):
    with pytest.raises(StorageError, match=sentence) as caught:
        Location.of(address)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_missing_bucket_is_one_sentence(store):
    location = Location.of(store.uri("absent/x").partition("&allow")[0])
    with pytest.raises(StorageError, match="the bucket does not exist: create it first"):
        location.write_text("x")


def test_reads_and_writes_wait_for_the_end_of_an_outage(store, caplog):
    folder = Location.of(store.uri("bucket/outage"))
    content = os.urandom(12 * 2**20)
    (folder / "old").write_bytes(content)
    store.relay.close()
    threading.Timer(3, store.relay.open).start()
    started = time.monotonic()
    contents = []

    def read():
        contents.append((folder / "old").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    (folder / "new").write_bytes(content)
    reader.join()

    assert time.monotonic() - started > 2.5
    assert contents == [content]
    assert (folder / "new").read_bytes() == content
    assert "does not answer; trying again" in caplog.text


def test_interrupted_upload_is_repeated(store):
    location = Location.of(store.uri("bucket/broken-off"))
    content = os.urandom(24 * 2**20)
    threading.Timer(0.2, store.relay.close).start()
    threading.Timer(1.5, store.relay.open).start()
    with location.open_output() as file:
        file.write(content)

    assert location.read_bytes() == content


def test_unreachable_store_is_one_sentence(monkeypatch):
    monkeypatch.setattr(bucket, "TIMEOUT_S", 1.0)
    monkeypatch.setattr("os.environ", os.environ | CREDENTIALS)
    location = Location.of(f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match="s3://bucket has not answered for 1 s"):
        location.read_text()


def test_local_location_does_not_import_arrow(tmp_path):
    program = (
        "import sys; from thermal_search.storage import Location; "
        f"Location.of({str(tmp_path / 'x')!r}).write_text('x'); "
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken must be a folder, but .*File exists"):
        Location.of(tmp_path / "taken").make_folder()
