"""Every layout with its oddities, and malicious files."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import get_args

import layout_trees
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import LAYOUTS, read_layout
from thermal_search.preparation.layouts.flir_v2_stills import normalized, pair_videos
from thermal_search.preparation.settings import LayoutName

READ = {
    # layout: (writer, pairs by the authors' split, unpaired RGB, unpaired thermal)
    "flir-v2": (layout_trees.flir_v2, {"train": 8, "val": 8, "test": 12}, 14, 14),
    "flir-v1": (layout_trees.flir_v1, {"train": 11, "val": 4, "test": 4}, 0, 3),
    "flir-v1.3": (layout_trees.flir_v1_3, {"train": 11, "val": 4, "test": 4}, 0, 3),
    "flir-europe": (layout_trees.flir_europe, {"train": 9, "val": 5}, 0, 2),
    "flir-aligned": (layout_trees.flir_aligned, {"train": 14, "val": 5}, 0, 0),
    "kaist": (layout_trees.kaist, {"train": 16, "test": 8}, 0, 0),
    "llvip": (layout_trees.llvip, {"train": 12, "test": 4}, 0, 0),
    "m3fd": (layout_trees.m3fd, {None: 20}, 0, 0),
    "msrs": (layout_trees.msrs, {"train": 12, "test": 6}, 0, 0),
    "roadscene": (layout_trees.roadscene, {None: 9}, 0, 0),
    "side-by-side": (layout_trees.side_by_side, {"train": 10, "val": 4, "test": 4}, 0, 0),
    "unpaired": (layout_trees.unpaired, {"val": 5}, 9, 7),
    "folders": (layout_trees.folders, {None: 19}, 0, 0),
}


@pytest.mark.parametrize("name", READ)
def test_layout_is_recognized_and_read_completely(name, tmp_path):
    write, splits, rgb, thermal = READ[name]
    layout, contents = read_layout(write(tmp_path))
    kinds = Counter(frame.kind for frame in contents.frames)

    assert layout == name
    assert Counter(frame.split for frame in contents.frames if frame.kind == "pairs") == splits
    assert (kinds["rgb"], kinds["thermal"]) == (rgb, thermal)
    names = [(frame.kind, frame.recording, frame.name) for frame in contents.frames]
    assert len(set(names)) == len(names)


def test_every_layout_has_a_test_a_section_in_the_docs_and_a_setting():
    text = (Path(__file__).parents[1] / "docs" / "layouts.md").read_text()

    assert set(READ) == set(LAYOUTS) - {"side-by-side-ba"}
    assert [name for name in LAYOUTS if f"`{name}`" not in text] == []
    assert set(get_args(LayoutName)) == set(LAYOUTS)


def test_unusable_files_have_a_name_and_a_reason(tmp_path):
    assert read_layout(layout_trees.flir_aligned(tmp_path / "a"))[1].unusable_files == [
        ("align_train.txt: FLIR_99999_PreviewData", "listed, but an image is missing")
    ]
    assert read_layout(layout_trees.folders(tmp_path / "b"))[1].unusable_files == [
        ("RGB/frame_1007.jpg", "no thermal partner"),
    ]
    assert read_layout(layout_trees.flir_europe(tmp_path / "c"))[1].unusable_files == [
        (f"{split}/europe_thermal_to_rgb.json: rgb_00007.jpg", "named by the map, but missing")
        for split in ("train", "val")
    ]


@pytest.mark.parametrize(("nested", "beside"), [(True, True), (True, False), (False, False)])
def test_map_may_be_in_the_folder_or_beside_it(tmp_path, nested, beside):
    root = layout_trees.flir_v2(tmp_path / "all", nested=nested, map_beside=beside, stills=False)
    for source in (root, *([root / "FLIR_ADAS_v2"] if nested else [])):
        contents = read_layout(source)[1]
        assert len(contents.frames) == 12
        assert contents.unusable_files == []


def test_videos_are_the_test_split_only_if_stills_can_train(tmp_path):
    _, contents = read_layout(layout_trees.flir_v2(tmp_path, stills=False))

    assert {frame.split for frame in contents.frames} == {None}


def test_radiometric_images_are_found(tmp_path):
    for write, folder in (
        (layout_trees.flir_v2, "analyticsData"),
        (layout_trees.flir_v1, "Data"),
        (layout_trees.flir_v1_3, "thermal_16_bit"),
    ):
        _, contents = read_layout(write(tmp_path / folder))
        radiometric = [frame for frame in contents.frames if frame.radiometric]
        assert radiometric
        assert all(frame.radiometric.parent.name == folder for frame in radiometric)
        assert all(frame.radiometric.stem == frame.thermal.stem for frame in radiometric)


def test_stills_are_paired_by_description_or_name_at_equal_frames(tmp_path):
    _, contents = read_layout(layout_trees.flir_v2(tmp_path))
    pairs = [f for f in contents.frames if f.kind == "pairs" and f.split == "train"]

    assert {(f.recording, f.rgb.name.split("-")[3]) for f in pairs} == {
        (video, f"{n:06d}") for video in ("rgbTrain1", "rgbTrain2") for n in (10, 20, 30, 40)
    }
    assert all(f.rgb.name.split("-")[3] == f.thermal.name.split("-")[3] for f in pairs)
    assert {f.pairing for f in pairs} == {"recovered"}
    # Unpaired frames stay in their pairs' recording, so that no split separates them.
    assert {f.recording for f in contents.frames if f.thermal and f.split == "train"} == {
        "rgbTrain1",
        "rgbTrain2",
        "irTrain3",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Drive_01_Visible.avi", "drive 01 thermal.zip"),
        ("a b cam1.mp4", "A_B_CAM2.avi"),
        ("2019-05-01_RGB.avi", "20190501_IR.avi"),
    ],
)
def test_names_of_two_cameras_are_normalized_to_one(one, other):
    assert normalized(one) == normalized(other)


def test_pointer_overrides_names_and_no_video_has_two_partners():
    rgb = [{"id": "a", "filename": "same.avi"}, {"id": "b", "filename": "b.avi"}]
    thermal = [
        {"id": "x", "filename": "same.avi", "description": '{"RGB": "b"}'},
        {"id": "y", "filename": "y.avi", "description": '{"RGB": "b"}'},
    ]

    assert pair_videos(rgb, thermal, present=({"a", "b"}, {"x", "y"})) == {"x": "b"}


def test_broken_index_is_listed_and_its_pairs_are_not_recovered(tmp_path):
    layout_trees.flir_v2(tmp_path)
    (tmp_path / "FLIR_ADAS_v2/images_thermal_train/index.json").write_text("{")
    _, contents = read_layout(tmp_path)

    assert [file for file, _ in contents.unusable_files] == [
        "FLIR_ADAS_v2/images_thermal_train/index.json"
    ]
    assert Counter(f.pairing for f in contents.frames if f.kind == "pairs")["recovered"] == 8


def test_either_half_of_a_side_by_side_image_can_be_rgb(tmp_path):
    layout_trees.side_by_side(tmp_path)

    assert {f.rgb_side for f in read_layout(tmp_path)[1].frames} == {"left"}
    assert {f.rgb_side for f in read_layout(tmp_path, "side-by-side-ba")[1].frames} == {"right"}


@pytest.mark.parametrize(
    "form", [("vis/train", "ir/train"), ("train/vis", "train/ir"), ("visible", "lwir")]
)
def test_own_folders_may_have_various_names_and_nesting(tmp_path, form):
    for folder in form:
        for n in range(8):
            layout_trees.image(tmp_path / folder / f"{n}.png")
    name, contents = read_layout(tmp_path)

    assert name == "folders"
    assert len(contents.frames) == 8
    assert {frame.pairing for frame in contents.frames} == {"assumed"}


def pairs_in(root, folders, names):
    for kind in folders:
        for name in names:
            mode = "L" if kind == folders[1] else "RGB"
            layout_trees.image(root / kind / name, layout_trees.THERMAL, mode)


@pytest.mark.parametrize("rgb", ["rgb", "visible", "Vis", "vi", "color"])
@pytest.mark.parametrize("thermal", ["thermal", "infrared", "IR", "lwir", "tir"])
def test_every_two_names_of_the_two_folders_are_known(tmp_path, rgb, thermal):
    pairs_in(tmp_path, (rgb, thermal), ["0.png", "1.png"])

    assert len(read_layout(tmp_path, "folders")[1].frames) == 2


@pytest.mark.parametrize("form", ["{kind}/{drive}", "{drive}/{kind}", "{kind}/a/{drive}/b"])
def test_drives_in_folders_of_their_own_are_recordings(tmp_path, form):
    for drive in ("seq1", "seq2"):
        folders = [form.format(kind=kind, drive=drive) for kind in ("rgb", "thermal")]
        pairs_in(tmp_path, folders, ["f_000.jpg", "f_001.jpg"])
    _, contents = read_layout(tmp_path)

    assert len(contents.frames) == 4
    assert len({frame.recording for frame in contents.frames}) == 2
    assert len({(frame.recording, frame.name) for frame in contents.frames}) == 4
    assert contents.unusable_files == []


def test_images_beside_folders_of_images_are_read_too(tmp_path):
    pairs_in(tmp_path, ("rgb", "thermal"), ["a.jpg", "seq/a.jpg", "seq/b.jpg"])

    assert len(read_layout(tmp_path)[1].frames) == 3


@pytest.mark.parametrize("form", ["{kind}/{split}", "{split}/{kind}", "{split}/{kind}/cam"])
@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "val", "testing"], ["train", "val", "test"]),
        (["Train", "dev", "holdout"], ["train", "val", "test"]),
        (["training", "valid", "eval"], ["train", "val", "test"]),
        (["train", "eval"], ["train", "val"]),
    ],
)
def test_folders_of_splits_have_various_names(tmp_path, form, names, splits):
    for name in names:
        folders = [form.format(kind=kind, split=name) for kind in ("rgb", "thermal")]
        pairs_in(tmp_path, folders, ["0.jpg"])

    assert {frame.split for frame in read_layout(tmp_path)[1].frames} == set(splits)


def test_two_names_of_one_split_are_paired(tmp_path):
    pairs_in(tmp_path, ("rgb/val", "thermal/validation"), ["0.jpg"])

    assert [frame.split for frame in read_layout(tmp_path)[1].frames] == ["val"]


@pytest.mark.parametrize("form", ["{kind}/{split}", "{split}/{kind}"])
def test_split_that_one_side_lacks_is_named(tmp_path, form):
    names = ["0.jpg", "1.jpg"]
    pairs_in(tmp_path, [form.format(kind=kind, split="train") for kind in ("rgb", "ir")], names)
    for name in names:
        layout_trees.image(tmp_path / form.format(kind="rgb", split="test") / name)
    _, contents = read_layout(tmp_path)

    assert len(contents.frames) == 2
    assert any("2" in note and "test" in note for note in contents.notes)


def test_folders_that_are_not_read_are_named(tmp_path):
    pairs_in(tmp_path, ("rgb", "thermal"), ["0.jpg"])
    layout_trees.image(tmp_path / "more" / "a.jpg")
    layout_trees.image(tmp_path / "more" / "b.jpg")
    (tmp_path / "more" / ".hidden.jpg").touch()

    assert "Images that were not read: 2 in more." in read_layout(tmp_path)[1].notes


def test_composed_and_decomposed_names_are_one_name(tmp_path):
    layout_trees.image(tmp_path / "rgb" / "stra\u00dfe \u00fc.jpg")
    layout_trees.image(tmp_path / "thermal" / "stra\u00dfe u\u0308.jpg")

    assert len(read_layout(tmp_path)[1].frames) == 1


def test_companions_of_other_tools_count_as_nothing(tmp_path):
    pairs_in(tmp_path, ("rgb", "thermal"), ["0.jpg"])
    for name in ("._0.jpg", "Thumbs.db", "desktop.ini", "a.yaml", "a.log", "@eaDir/0.jpg"):
        (tmp_path / "rgb" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "rgb" / name).touch()
    _, contents = read_layout(tmp_path)

    assert contents.unusable_files == []
    assert len(contents.notes) == 1


def test_links_that_lead_outside_are_followed_if_a_flag_allows_them(tmp_path):
    pairs_in(tmp_path / "elsewhere", ("rgb", "thermal"), ["0.jpg", "1.jpg"])
    (tmp_path / "raw" / "rgb").mkdir(parents=True)
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / "raw" / "rgb" / name).symlink_to(tmp_path / "elsewhere" / "rgb" / name)
    (tmp_path / "raw" / "thermal").symlink_to(tmp_path / "elsewhere" / "thermal")
    with pytest.raises(DatasetError, match="a link that leads out of the recording"):
        read_layout(tmp_path / "raw")

    assert len(read_layout(tmp_path / "raw", follow_links=True)[1].frames) == 2


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [("auto", "must have a known layout"), ("kaist", "must hold set00/V000/visible/")],
)
def test_error_for_an_unknown_layout_names_its_folders(tmp_path, layout, sentence):
    with pytest.raises(DatasetError, match=sentence):
        read_layout(tmp_path, layout)


# Malicious files.


@pytest.mark.parametrize("evil", ["../../secret.jpg", "/etc/passwd", "a/b.jpg", "..", "", "x\0"])
def test_map_that_leads_outside_is_listed_and_not_followed(tmp_path, evil):
    layout_trees.flir_v2(tmp_path, stills=False)
    file = tmp_path / "rgb_to_thermal_vid_map.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {next(iter(content)): evil}))
    _, contents = read_layout(tmp_path)

    assert len(contents.frames) == 11
    assert [reason for _, reason in contents.unusable_files] == ["must be two plain file names"]


def test_links_that_lead_outside_are_listed_and_not_followed(tmp_path):
    root, secret = tmp_path / "raw", tmp_path / "secret"
    layout_trees.folders(root)
    layout_trees.image(secret / "frame_0.jpg")
    (root / "RGB" / "frame_0.jpg").unlink()
    (root / "RGB" / "frame_0.jpg").symlink_to(secret / "frame_0.jpg")
    # A link within the recording is allowed, a cycle of links is not.
    (root / "RGB" / "frame_2.jpg").unlink()
    (root / "RGB" / "frame_2.jpg").symlink_to(root / "RGB" / "frame_1.jpg")
    (root / "RGB" / "ring.jpg").symlink_to(root / "RGB" / "ring.jpg")
    _, contents = read_layout(root)

    assert ("RGB/frame_0.jpg", "a link that leads out of the recording") in contents.unusable_files
    assert "RGB/ring.jpg" in dict(contents.unusable_files)
    assert "frame_2" in {frame.name for frame in contents.frames}


def test_a_folder_that_is_a_link_out_of_the_recording_is_refused(tmp_path):
    layout_trees.folders(tmp_path / "elsewhere")
    (tmp_path / "raw").mkdir()
    for folder in ("RGB", "Thermal"):
        (tmp_path / "raw" / folder).symlink_to(tmp_path / "elsewhere" / folder)
    with pytest.raises(DatasetError, match="a link that leads out of the recording: RGB"):
        read_layout(tmp_path / "raw")


def test_list_that_links_outside_is_not_read(tmp_path):
    layout_trees.flir_aligned(tmp_path / "raw")
    layout_trees.lines(tmp_path / "secret" / "list.txt", ["password"])
    file = tmp_path / "raw" / "align" / "align_train.txt"
    file.unlink()
    file.symlink_to(tmp_path / "secret" / "list.txt")
    with pytest.raises(DatasetError, match="must be in the recording") as raised:
        read_layout(tmp_path / "raw")
    assert "password" not in str(raised.value)


def test_control_characters_in_names_are_escaped(tmp_path):
    layout_trees.folders(tmp_path)
    (tmp_path / "RGB" / "\x1b[2Jcls.gif").write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(tmp_path / "RGB") + b"/\xff.jpg"))).write_bytes(b"")
    os.mkfifo(tmp_path / "RGB" / "pipe.jpg")
    _, contents = read_layout(tmp_path)

    reasons = dict(contents.unusable_files)
    assert reasons["RGB/\\x1b[2Jcls.gif"] == ".gif files are not read; convert them to PNG"
    assert reasons["RGB/\\udcff.jpg"] == "a name that is not UTF-8"
    assert reasons["RGB/pipe.jpg"] == "not a file"


NAMES = st.sampled_from(
    [
        "../x.jpg",
        "/etc/passwd",
        "\ud800.jpg",
        layout_trees.flir_name("rgbTest0", 1, "r01"),
        "a" * 300,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | NAMES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            NAMES | st.sampled_from(["videos", "id", "filename", "description"]), inner, max_size=4
        )
        | st.fixed_dictionaries({"thermal_to_rgb_ordered_frames": st.lists(inner, max_size=3)})
        | st.builds(
            lambda thermal, rgb: {"thermal_filename": thermal, "rgb_filename": rgb}, inner, inner
        )
        | st.builds(lambda videos: {"videos": videos}, st.lists(inner, max_size=3))
    ),
    max_leaves=12,
)
BYTES = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (layout_trees.flir_v2, "rgb_to_thermal_vid_map.json"),
        (layout_trees.flir_v2, "FLIR_ADAS_v2/images_thermal_train/index.json"),
        (layout_trees.flir_europe, "train/europe_thermal_to_rgb.json"),
        (layout_trees.flir_aligned, "align/align_train.txt"),
    ],
)
def test_no_content_of_a_list_crashes_or_leads_outside(write, file, tmp_path):
    root = write(tmp_path)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(BYTES)
    def holds(content):
        (root / file).write_bytes(content)
        try:
            _, contents = read_layout(root)
        except DatasetError:
            return
        for frame in contents.frames:
            for path in (frame.rgb, frame.thermal, frame.radiometric):
                assert path is None or path.resolve().is_relative_to(root)
        assert all(text.isprintable() for entry in contents.unusable_files for text in entry)

    holds()


@pytest.mark.parametrize("bomb", ["[" * 200_000, '{"a":' * 200_000, "9" * 10_000])
def test_deep_or_long_json_is_one_sentence(tmp_path, bomb):
    layout_trees.flir_v2(tmp_path, stills=False)
    (tmp_path / "rgb_to_thermal_vid_map.json").write_text(bomb)
    with pytest.raises(DatasetError, match="must be JSON"):
        read_layout(tmp_path)
