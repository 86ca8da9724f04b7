"""Locations on a disk and in a bucket: the same rules, against a real S3 server on loopback."""

import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
from object_store import CREDENTIALS, free_port, object_store

from thermal_search import storage
from thermal_search.storage import Location, StorageError


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


def test_what_is_written_is_read_listed_and_deleted(folder):
    (folder / "a" / "one.txt").write_text("eins")
    (folder / "a" / "two.bin").write_bytes(b"\x00\x02")
    (folder / "three").write_text("drei")

    assert (folder / "a/one.txt").read_text() == "eins"
    assert (folder / "a" / "two.bin").read_bytes() == b"\x00\x02"
    assert [place.name for place in folder.list()] == ["a", "three"]
    assert [place.name for place in folder.list(deep=True)] == ["one.txt", "two.bin", "three"]
    assert (folder / "a").exists()
    assert not (folder / "a").is_file()
    assert (folder / "three").is_file()
    (folder / "a").delete()
    (folder / "absent").delete()
    assert [place.name for place in folder.list(deep=True)] == ["three"]
    assert not (folder / "a").exists()
    assert (folder / "absent").list() == []


def test_a_file_that_grows_is_read_as_it_was_at_one_moment(folder):
    place, over = folder / "file", threading.Event()
    place.write_bytes(b"<>")

    def grow():
        for length in range(1, 10_000):
            if over.wait(0.02):
                return
            place.write_bytes(b"<" + length * b"-" + b">")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        contents = [place.read_bytes() for _ in range(60)]
    finally:
        over.set()
        writer.join()
    assert all(content.endswith(b">") for content in contents)


def test_an_absent_file_is_a_file_not_found(folder):
    with pytest.raises(FileNotFoundError):
        (folder / "absent").read_text()
    with pytest.raises(FileNotFoundError), (folder / "absent").open_input():
        pass


def test_a_write_that_fails_leaves_the_old_file(folder):
    place = folder / "file"
    place.write_text("old")

    def fail():
        with place.open_output() as file:
            file.write(b"new" * 10**7)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()

    assert place.read_text() == "old"
    assert [kept.name for kept in folder.list(deep=True)] == ["file"]


def test_large_files_come_back_whole_and_can_be_sought_in(folder):
    content = os.urandom(12 * 2**20)
    with (folder / "large").open_output() as file:
        file.write(content)
    with (folder / "large").open_input() as file:
        file.seek(5)
        assert file.read(10) == content[5:15]
        file.seek(0)
        assert file.read() == content


def test_a_location_travels_without_its_store(folder):
    (folder / "x").write_text("x")
    sent = pickle.dumps(folder / "x")

    assert len(sent) < 500
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in sent
    assert pickle.loads(sent).read_text() == "x"
    assert Location.of((folder / "x").uri) == (folder / "x").absolute()


def test_paths_below_a_bucket_keep_its_options():
    root = Location.of("s3://bucket/a?scheme=http&endpoint_override=127.0.0.1:1")

    assert root / "b" == Location.of("s3://bucket/a/b/?endpoint_override=127.0.0.1:1&scheme=http")
    assert str(root / "b") == "s3://bucket/a/b?endpoint_override=127.0.0.1:1&scheme=http"
    assert (root / "b").parent == root
    assert (root / "b").name == "b"
    assert Location.of("gs://bucket/x/y").path == "bucket/x/y"


def test_local_addresses_are_paths(tmp_path):
    place = Location.of((tmp_path / "with space").as_uri())

    assert place.local == tmp_path / "with space"
    assert Location.of("relative/file").local.as_posix() == "relative/file"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://key:geheim@bucket/x", "must not hold a user or a password"),
        ("s3://geheim@bucket/x", "must not hold a user or a password"),
        ("s3://bucket/x?secret_key=geheim", "must not have secret_key="),
        ("s3:///x", "needs a bucket"),
        ("s3://bucket/../geheim", "must not hold '..'"),
        ("ftp://host/x", "ftp:// is no storage we know"),
        ("s3://bucket:geheim/x", "cannot be understood"),
    ],
)
def test_an_address_that_is_none_is_one_sentence_without_its_secret(address, sentence):
    with pytest.raises(StorageError, match=sentence) as caught:
        Location.of(address)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bucket_that_is_not_there_is_one_sentence(store):
    place = Location.of(store.uri("absent/x").partition("&allow")[0])
    with pytest.raises(StorageError, match="the bucket does not exist: create it first"):
        place.write_text("x")


def test_an_outage_is_waited_out_by_reads_and_writes(store, caplog):
    folder = Location.of(store.uri("bucket/outage"))
    content = os.urandom(12 * 2**20)
    (folder / "old").write_bytes(content)
    store.relay.close()
    threading.Timer(3, store.relay.open).start()
    started = time.monotonic()
    told = []

    def read():
        told.append((folder / "old").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    (folder / "new").write_bytes(content)
    reader.join()

    assert time.monotonic() - started > 2.5
    assert told == [content]
    assert (folder / "new").read_bytes() == content
    assert "does not answer; trying again" in caplog.text


def test_a_store_that_breaks_off_while_sending_is_sent_all_again(store):
    place = Location.of(store.uri("bucket/broken-off"))
    content = os.urandom(24 * 2**20)
    threading.Timer(0.2, store.relay.close).start()
    threading.Timer(1.5, store.relay.open).start()
    with place.open_output() as file:
        file.write(content)

    assert place.read_bytes() == content


def test_a_store_that_stays_away_is_one_sentence(monkeypatch):
    monkeypatch.setattr(storage, "TIMEOUT_S", 1.0)
    monkeypatch.setattr("os.environ", os.environ | CREDENTIALS)
    place = Location.of(f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match="s3://bucket has not answered for 1 s"):
        place.read_text()


def test_a_local_location_costs_no_import_of_arrow(tmp_path):
    program = (
        "import sys; from thermal_search.storage import Location; "
        f"Location.of({str(tmp_path / 'x')!r}).write_text('x'); "
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken must be a folder, but .*File exists"):
        Location.of(tmp_path / "taken").make_folder()
