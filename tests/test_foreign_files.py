"""Commands remove and replace only what they have made themselves."""

import json

import numpy as np
import pytest
from generator_helpers import save_untrained
from PIL import Image
from recordings import folders, image

from thermal_search import atomic_file
from thermal_search.cli import main
from thermal_search.errors import DatasetError, MetricError
from thermal_search.evaluation.fid import distance_between
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.staging import scratch_folder
from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.translation.settings import TranslationSettings

SETTINGS = PreparationSettings(size=32, workers=1)
SOURCE, OUTPUT = Location.of("s3://bucket/raw"), Location.of("s3://bucket/data")


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "b.png"):
        image(tmp_path / "photos" / name, size=(32, 32))
    return tmp_path / "photos"


class TestTemporaryFile:
    def test_link_at_the_target_is_replaced_and_not_followed(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "target").symlink_to(tmp_path / "mine")
        Location.of(tmp_path / "target").write_text("new")

        assert (tmp_path / "mine").read_text() == "mine"
        assert (tmp_path / "target").read_text() == "new"

    @pytest.mark.parametrize("is_link", [True, False])
    def test_planted_file_is_neither_written_nor_removed(self, tmp_path, monkeypatch, is_link):
        monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda _: "0" * 16)
        mine, planted = tmp_path / "mine", tmp_path / f".unfinished-{'0' * 16}"
        mine.write_text("mine")
        planted.symlink_to(mine) if is_link else planted.write_text("mine")
        with pytest.raises(FileExistsError):
            Location.of(tmp_path / "target").write_text("new")

        assert planted.read_text() == mine.read_text() == "mine"

    def test_failed_write_leaves_the_old_content_and_nothing_else(self, tmp_path):
        (tmp_path / "target").write_text("old")
        with pytest.raises(ZeroDivisionError), atomic_file.replacing(tmp_path / "target") as file:
            file.write(b"%d" % (1 // 0))

        assert contents(tmp_path) == {(tmp_path / "target").relative_to(tmp_path): b"old"}

    def test_name_of_any_allowed_length_can_be_written(self, tmp_path):
        Location.of(tmp_path / ("x" * 255)).write_text("new")


class TestScratch:
    def test_other_files_of_the_folder_stay(self, tmp_path):
        (tmp_path / "photo.jpg").write_text("mine")
        with scratch_folder(tmp_path, SOURCE, OUTPUT) as folder:
            (folder / "copy").write_text("")

        assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]

    def test_folders_that_it_made_are_removed_and_no_others(self, tmp_path):
        with scratch_folder(tmp_path / "new" / "deep", SOURCE, OUTPUT):
            pass

        assert list(tmp_path.iterdir()) == []

    def test_folder_of_this_name_that_is_not_ours_is_refused(self, tmp_path):
        (tmp_path / "data.scratch").mkdir()
        (tmp_path / "data.scratch" / "photo.jpg").write_text("mine")
        with (
            pytest.raises(DatasetError, match="or of an interrupted run of this command"),
            scratch_folder(tmp_path, SOURCE, OUTPUT),
        ):
            pass

        assert (tmp_path / "data.scratch" / "photo.jpg").exists()

    def test_failed_run_is_resumed_by_the_same_command_only(self, tmp_path):
        with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path, SOURCE, OUTPUT) as folder:
            (folder / "copy").write_text(str(1 // 0))
        (folder / "copy").write_text("")
        with pytest.raises(DatasetError), scratch_folder(tmp_path, OUTPUT, OUTPUT):
            pass
        with scratch_folder(tmp_path, SOURCE, OUTPUT) as folder:
            assert (folder / "copy").exists()


class TestPreparation:
    @pytest.mark.parametrize(
        "files",
        [
            {"photo.jpg": "mine"},
            {"preparation.json": '{"my": "plan"}'},
            {"preparation.json": '{"my": "plan"}', "pairs/photo.jpg": "mine"},
            {"pairs/train-00000.parquet": "mine"},
        ],
    )
    def test_other_files_in_the_partial_folder_are_not_removed(self, tmp_path, files):
        folders(tmp_path / "raw", count=8)
        for name, text in files.items():
            (tmp_path / "data.partial" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data.partial" / name).write_text(text)
        before = contents(tmp_path)
        with pytest.raises(DatasetError, match="but holds other files"):
            prepare(tmp_path / "raw", tmp_path / "data", SETTINGS)

        assert contents(tmp_path) == before

    @pytest.mark.parametrize("name", ["data.partial", "data.partial/pairs"])
    def test_link_is_not_followed(self, tmp_path, name):
        folders(tmp_path / "raw", count=8)
        (tmp_path / "mine").mkdir()
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "mine")
        with pytest.raises(DatasetError, match="but holds other files"):
            prepare(tmp_path / "raw", tmp_path / "data", SETTINGS)

    def test_output_in_the_recording_is_refused(self, tmp_path):
        folders(tmp_path / "raw", count=8)
        with pytest.raises(DatasetError, match="must not be in the recording"):
            prepare(tmp_path / "raw", tmp_path / "raw" / "data", SETTINGS)


class TestTranslation:
    @pytest.mark.parametrize("target", ["photos", "photos/../photos", "link"])
    def test_folder_of_the_rgb_images_is_no_target(self, model, photos, tmp_path, target):
        (tmp_path / "link").symlink_to(photos)
        before = contents(photos)
        with pytest.raises(DatasetError, match="must not be the folder of the RGB images"):
            translate(model, photos, tmp_path / target)

        assert contents(photos) == before

    @pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
    def test_file_of_another_origin_is_not_replaced(self, model, photos, tmp_path, kind):
        target = tmp_path / "thermal" / "b.png"
        target.parent.mkdir()
        if kind == "file":
            image(target)
        elif kind == "folder":
            target.mkdir()
        else:
            target.symlink_to(photos / "a.png" if kind == "link" else tmp_path / "absent")
        before = contents(tmp_path)
        with pytest.raises(DatasetError, match=r"b\.png exists and was not written by translate"):
            translate(model, photos, target.parent)

        assert contents(tmp_path) == before

    def test_earlier_translation_is_replaced(self, model, photos, tmp_path):
        for seed in (0, 1):
            translate(model, photos, tmp_path / "thermal", TranslationSettings(seed=seed))
        with Image.open(tmp_path / "thermal" / "a.png") as written:
            assert written.info["Software"] == "thermal-search translate"


@pytest.mark.parametrize("content", ["mine", "[]", '{"my": 1}', "[" * 100_000])
def test_report_replaces_only_a_report(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    words = ["evaluate", "model", "--data", "data", "--json", tmp_path / "mine.json"]
    with pytest.raises(SystemExit, match="exists and is not an earlier report"):
        main([*map(str, words)])

    assert (tmp_path / "mine.json").read_text() == content


def test_statistics_replace_only_statistics(photos, tmp_path):
    np.savez(tmp_path / "mine.npz", photos=np.zeros(3))
    with pytest.raises(MetricError, match="exists and holds no statistics"):
        distance_between(photos, photos, save=tmp_path / "mine.npz")


def test_config_of_another_tool_is_no_earlier_export(model, tmp_path):
    from thermal_search.export import _is_empty_or_export

    folder = Location.of(tmp_path / "bert")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "version": 1}))

    assert not _is_empty_or_export(folder)
    assert _is_empty_or_export(Location.of(model))
    assert _is_empty_or_export(Location.of(tmp_path / "new"))


def test_control_characters_of_a_name_are_printed_escaped(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["fid", str(tmp_path / "\x1b[2J"), str(tmp_path)])

    assert str(ended.value).isprintable()
    assert "\\x1b[2J" in str(ended.value)
