"""`thermal-search translate`: any image becomes its thermal image, once, under its own name."""

import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from generator_helpers import save_untrained
from PIL import Image
from tiny_settings import SIZE

from thermal_search import generator
from thermal_search.cli import main
from thermal_search.errors import DatasetError
from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.translation.rendering import colors
from thermal_search.translation.settings import TranslationSettings


def draw(path, shape=(40, 60), seed=0, **options):
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8)).save(path, **options)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def refuse(*arguments):
    """The one sentence of a call that must fail."""
    with pytest.raises(DatasetError) as raised:
        translate(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """pix2pix, whose dropout stays active."""
    return save_untrained(tmp_path_factory.mktemp("pix2pix") / "model")


@pytest.fixture
def photos(tmp_path):
    for seed in range(3):
        draw(tmp_path / "photos" / f"{seed}.png", seed=seed)
    return tmp_path / "photos"


class TestNames:
    def test_subfolders_and_names_are_kept(self, model, tmp_path):
        names = ["a.png", "sub folder/b.jpg", "sub folder/ß é/what? #1.bmp", "x/same.jpg"]
        for name in [*names, "x/same.bmp", ".hidden/c.png", "._a.png"]:
            draw(tmp_path / "photos" / name)
        translate(model, tmp_path / "photos", tmp_path / "thermal")

        assert files(tmp_path / "thermal") == {
            "a.png",
            "sub folder/b.png",
            "sub folder/ß é/what? #1.png",
            "x/same.jpg.png",
            "x/same.bmp.png",
        }

    def test_what_is_not_read_is_named_with_the_reason(self, model, photos, tmp_path, capsys):
        (photos / "broken.jpg").write_bytes(b"cut off")
        (photos / "raw.dng").touch()
        (photos / "drive.mp4").touch()
        (photos / "notes.txt").touch()
        (photos / "line\nbreak.png").touch()
        (photos / "circle").symlink_to(photos)
        (photos / "linked.png").symlink_to(photos / "0.png")
        main(["translate", str(model), str(photos), str(tmp_path / "thermal")])
        captured = capsys.readouterr()

        assert files(tmp_path / "thermal") == {"0.png", "1.png", "2.png", "linked.png"}
        assert captured.err.splitlines() == [
            "Left out circle: a link to a folder, which is not followed",
            "Left out drive.mp4: a video; pass it as the input by itself",
            "Left out raw.dng: .dng files are not read; convert them to PNG",
            "Left out broken.jpg: corrupt (not an image)",
            r"Left out line\nbreak.png: corrupt (the file is empty)",
        ]
        assert captured.out == f"4 thermal images in {tmp_path / 'thermal'}.\n"

    def test_one_image_becomes_a_file_or_goes_to_a_folder(self, model, photos, tmp_path):
        translate(model, photos / "0.png", tmp_path / "new" / "name.png")
        translate(model, photos / "0.png", tmp_path / "thermal")

        assert files(tmp_path / "thermal") == {"0.png"}
        assert np.array_equal(
            pixels(tmp_path / "thermal" / "0.png"), pixels(tmp_path / "new" / "name.png")
        )

    def test_pattern_keeps_what_is_below_its_fixed_part(self, model, photos, tmp_path, monkeypatch):
        draw(photos / "day" / "a.jpg")
        draw(photos / "night" / "a.jpg")
        draw(photos / "night" / "b[1].jpg")
        translate(model, photos / "*" / "a.jpg", tmp_path / "a")
        translate(model, photos / "**" / "*.jpg", tmp_path / "all")
        translate(model, photos / "night" / "b[1].jpg", tmp_path / "exact")
        monkeypatch.chdir(photos)
        translate(model, Location("[01].png"), Location("here"))

        assert files(tmp_path / "a") == {"day/a.png", "night/a.png"}
        assert files(tmp_path / "all") == {"day/a.png", "night/a.png", "night/b[1].png"}
        assert files(tmp_path / "exact") == {"b[1].png"}
        assert files(photos / "here") == {"0.png", "1.png"}

    def test_inputs_that_cannot_be_are_one_sentence(self, model, photos, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.txt").touch()
        (tmp_path / "file").touch()
        out = tmp_path / "out"

        assert "does not exist" in refuse(model, tmp_path / "absent", out)
        assert "holds none" in refuse(model, tmp_path / "empty", out)
        assert "No file matches" in refuse(model, tmp_path / "*.gif", out)
        assert "but has another suffix" in refuse(model, tmp_path / "notes.txt", out)
        assert "must not be the input itself" in refuse(model, photos / "0.png", photos)
        assert "or be in it" in refuse(model, photos, photos / "thermal")
        assert "or be in it" in refuse(model, photos / "*.png", photos)
        assert "must be a folder, but is a file" in refuse(model, photos, tmp_path / "file")
        assert not out.exists()

    def test_only_unreadable_images_are_an_error(self, model, tmp_path):
        (tmp_path / "photos").mkdir()
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "photos" / name).write_bytes(b"cut off")
        with pytest.raises(SystemExit, match=r"none of its 2 can be read \(b\.jpg: corrupt") as end:
            main(["translate", str(model), str(tmp_path / "photos"), str(tmp_path / "out")])

        assert "\n" not in str(end.value)
        assert not (tmp_path / "out").exists()


class TestPixels:
    def test_an_image_is_what_a_viewer_shows(self, tmp_path):
        model = save_untrained(tmp_path / "model", "cyclegan")
        upright = draw(tmp_path / "photos" / "a.png")
        shown = pixels(upright)
        exif = Image.Exif()
        exif[274] = 6  # turned by a quarter
        Image.fromarray(np.rot90(shown)).save(tmp_path / "photos" / "turned.png", exif=exif)
        opaque = Image.fromarray(shown).convert("RGBA")
        opaque.save(tmp_path / "photos" / "opaque.png")
        deep = shown[..., ::-1].astype(np.uint16) * 256 + 255
        cv2.imwrite(str(tmp_path / "photos" / "deep.png"), deep)
        translate(model, tmp_path / "photos", tmp_path / "thermal")
        expected = pixels(tmp_path / "thermal" / "a.png")

        assert expected.shape == (40, 60)
        assert len(np.unique(expected)) > 10
        for name in ("turned", "opaque", "deep"):
            assert np.array_equal(pixels(tmp_path / "thermal" / f"{name}.png"), expected), name

    def test_result_does_not_depend_on_the_other_images(self, model, photos, tmp_path):
        translate(model, photos, tmp_path / "all")
        translate(model, photos / "2.png", tmp_path / "one")
        translate(model, photos / "2.png", tmp_path / "other", TranslationSettings(seed=1))
        alone = pixels(tmp_path / "one" / "2.png").astype(int)

        assert np.abs(pixels(tmp_path / "all" / "2.png") - alone).max() <= 1
        assert np.abs(pixels(tmp_path / "other" / "2.png") - alone).max() > 1

    def test_plain_translation_is_what_the_generator_makes(self, tmp_path):
        model = save_untrained(tmp_path / "model", "unit")
        rgb = pixels(draw(tmp_path / "a.png", (SIZE, SIZE)))
        translate(model, tmp_path / "a.png", tmp_path / "out")
        with torch.inference_mode():
            images = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] / 127.5 - 1
            thermal = generator.load(model).translate(images)[0, 0].numpy()

        assert np.abs(pixels(tmp_path / "out" / "a.png") - (thermal + 1) * 127.5).max() <= 0.51

    def test_depths_colors_and_sizes(self, model, photos, tmp_path):
        def written(**settings):
            out = tmp_path / "-".join(settings)
            translate(model, photos / "0.png", out, TranslationSettings(**settings))
            return pixels(out / "0.png")

        gray, deep = written(seed=0), written(depth=16)
        colored, pair = written(colormap="inferno"), written(side_by_side=True)

        assert (gray.dtype, gray.shape) == (np.uint8, (40, 60))
        assert (deep.dtype, deep.shape) == (np.uint16, (40, 60))
        assert np.abs(deep / 257 - gray).max() <= 0.51
        assert len(np.unique(deep)) > 300
        assert np.array_equal(colored, colors("inferno")[gray])
        assert np.array_equal(pair[:, :60], pixels(photos / "0.png"))
        assert np.array_equal(pair[:, 60:], np.repeat(gray[..., None], 3, axis=2))
        assert written(size="generator").shape == (SIZE, SIZE)
        assert written(size="native").shape == written(tiles=True).shape == (40, 60)
        assert written(size="generator", fit="pad", side_by_side=True).shape == (21, 2 * SIZE, 3)

    def test_generator_of_one_size_has_no_native_size(self, photos, tmp_path):
        model = save_untrained(tmp_path / "model", "dcgan")
        settings = TranslationSettings(size="native")

        assert "pass --tiles instead" in refuse(model, photos, tmp_path / "out", settings)
        translate(model, photos, tmp_path / "out", TranslationSettings(tiles=True))
        assert len(files(tmp_path / "out")) == 3

    def test_overlap_is_at_most_half_a_tile(self, model, photos, tmp_path):
        settings = TranslationSettings(tiles=True, overlap=17)
        assert "must be at most 16" in refuse(model, photos, tmp_path / "out", settings)

    def test_generator_of_infinite_pixels_is_refused(self, photos, tmp_path):
        model = save_untrained(tmp_path / "model", "cyclegan")
        weights = generator.load(model).generator.state_dict()
        for value in weights.values():
            value.fill_(3e38)
        generator.save(Location.of(model), generator.load_config(model), weights)
        with pytest.raises(SystemExit, match="pixels that are not finite numbers"):
            main(["translate", str(model), str(photos), str(tmp_path / "out")])


class TestResuming:
    def test_only_what_has_changed_is_done_again(self, model, photos, tmp_path, capsys):
        out = tmp_path / "thermal"
        translate(model, photos, out)
        (out / "1.png").unlink()
        shutil.copy(photos / "0.png", photos / "2.png")
        times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        again = translate(model, photos, out)

        assert [path.name for path in again.written] == ["1.png", "2.png"]
        assert [path.name for path in again.kept] == ["0.png"]
        assert (out / "0.png").stat().st_mtime_ns == times["0.png"]
        difference = pixels(out / "2.png") - pixels(out / "0.png").astype(int)
        assert np.abs(difference).max() <= 1
        main(["translate", str(model), str(photos), str(out)])
        assert capsys.readouterr().out == f"3 thermal images in {out} (3 of an earlier run).\n"

    def test_other_settings_or_weights_are_another_translation(self, model, photos, tmp_path):
        out, moved = tmp_path / "thermal", tmp_path / "moved"
        other = save_untrained(tmp_path / "other", "cyclegan")
        shutil.copytree(model, moved)
        translate(model, photos, out)

        assert len(translate(moved, photos, out).kept) == 3
        assert len(translate(model, photos, out, TranslationSettings(seed=1)).written) == 3
        assert len(translate(other, photos, out, TranslationSettings(seed=1)).written) == 3

    def test_progress_shows_the_time_that_is_left(
        self, model, photos, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        translate(model, photos, tmp_path / "thermal")

        assert re.search(r"Translating.*3/3.*\d:\d\d:\d\d", capsys.readouterr().err)


def film(path, frames=6, shape=(48, 64), fps=20.0, codec="mp4v"):
    """A video of coarse random images."""
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, shape[::-1]
    )
    for number in range(frames):
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        writer.write(cv2.resize(blocks, shape[::-1]))
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return capture.get(cv2.CAP_PROP_FPS), np.array(frames)


class TestVideo:
    @pytest.mark.parametrize("name", ["night drive #1.mp4", "a.avi"])
    def test_every_frame_becomes_a_thermal_frame(self, tmp_path, name, capsys):
        model = save_untrained(tmp_path / "model", "cyclegan")
        film(tmp_path / "drive.mp4", frames=40)
        target = tmp_path / "out" / name
        main(["translate", str(model), str(tmp_path / "drive.mp4"), str(target)])
        fps, frames = frames_of(target)

        assert capsys.readouterr().out == f"{target} has 40 thermal frames, and no sound.\n"
        assert (fps, frames.shape) == (20.0, (40, 48, 64, 3))
        assert files(tmp_path / "out") == {name}

        # In order, and each as an image would be.
        _, rgb = frames_of(tmp_path / "drive.mp4")
        for number in (0, 5, 39):
            Image.fromarray(rgb[number][..., ::-1].copy()).save(tmp_path / "frame.png")
            translate(model, tmp_path / "frame.png", tmp_path / "image.png")
            image = pixels(tmp_path / "image.png").astype(float)
            distances = np.abs(frames[..., 0] - image).mean((1, 2))
            assert distances.argmin() == number
            assert distances[number] < 8

        assert translate(model, tmp_path / "drive.mp4", target).kept == [Location.of(target)]
        again = translate(model, tmp_path / "drive.mp4", target, TranslationSettings(seed=1))
        assert again.frames == 40

    def test_odd_sides_and_colors(self, model, tmp_path):
        film(tmp_path / "drive.avi", codec="FFV1", shape=(46, 64))
        settings = TranslationSettings(
            size="generator", fit="pad", colormap="inferno", side_by_side=True
        )  # 23 x 64 pixels
        translate(model, tmp_path / "drive.avi", tmp_path / "out", settings)

        assert frames_of(tmp_path / "out" / "drive.avi")[1].shape == (6, 24, 2 * SIZE, 3)

    def test_videos_that_cannot_be_are_one_sentence(self, model, tmp_path):
        drive, out = film(tmp_path / "drive.mp4"), tmp_path / "out"
        (tmp_path / "broken.mp4").write_bytes(b"cut off")
        film(tmp_path / "mine.mp4")
        before = (tmp_path / "mine.mp4").read_bytes()

        assert "must be a video that FFmpeg reads" in refuse(model, tmp_path / "broken.mp4", out)
        assert "must not be the input itself" in refuse(model, drive, tmp_path)
        assert "was not written by translate" in refuse(model, drive, tmp_path / "mine.mp4")
        assert "must end with .avi" in refuse(model, drive, tmp_path / "new.webm")
        assert (tmp_path / "mine.mp4").read_bytes() == before
        assert not out.exists()

    @pytest.mark.parametrize("flags", [["--depth", "16"], ["--workers", "2"]])
    def test_settings_of_images_are_refused(self, model, tmp_path, flags, capsys):
        film(tmp_path / "drive.mp4")
        with pytest.raises(SystemExit) as exited:
            main(["translate", str(model), str(tmp_path / "drive.mp4"), str(tmp_path), *flags])

        assert exited.value.code == 2
        assert "leave" in capsys.readouterr().err


class TestWorkers:
    def test_two_processes_write_what_one_writes(self, model, photos, tmp_path):
        (photos / "broken.png").write_bytes(b"cut off")
        one = translate(model, photos, tmp_path / "one")
        two = translate(model, photos, tmp_path / "two", TranslationSettings(workers=2))

        assert [path.name for path in two.written] == [path.name for path in one.written]
        assert two.left_out == one.left_out
        for name in files(tmp_path / "one"):
            difference = pixels(tmp_path / "one" / name).astype(int)
            difference -= pixels(tmp_path / "two" / name)
            assert np.abs(difference).max() <= 1

    def test_error_in_a_process_is_the_same_sentence(self, model, photos, tmp_path):
        draw(photos / "sub" / "a.png")
        out, sentences = tmp_path / "thermal", []
        out.mkdir()
        (out / "sub").touch()  # where a folder must be
        for workers in (1, 2):
            sentences.append(refuse(model, photos, out, TranslationSettings(workers=workers)))

        assert sentences[0] == sentences[1]
        assert re.search(r"sub/a\.png cannot be written \(.*the same command resumes", sentences[0])
        assert translate(model, photos / "0.png", out).kept
