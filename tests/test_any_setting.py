"""Any value of any setting of process.py, search, evaluate and translate gives success or one
sentence, within seconds and without Ray."""

import pytest
import ray
from generator_helpers import save_untrained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import folders, image

import process
from thermal_search.cli import main
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.translation.settings import TranslationSettings
from thermal_search.tuning.settings import LaunchSettings, SearchSettings

SOON = settings(
    deadline=20_000,
    max_examples=25,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "-", "--", ".", "..", "/", "/dev/null", "~", "a,b", "1,2,3", "nan", "-inf"),
            *(
                "x" * 300,
                "\udcff",
                "\x1b[2J",
                "a\nb",
                "s3://",
                "gs://x?y=1",
                "file:///",
                "%s",
                "{}",
            ),
        ]
    ),
    # A command line has no null character.
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12),
)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(-(10**30), 10**30),
    st.sampled_from([2**31, 2**32, 2**63, 2**64]),
    st.floats(), st.floats(-5, 5),
).map(str)  # fmt: skip
VALUES = st.one_of(NUMBERS, WORDS)


def ends_well(capsys, call, *words):
    """Runs a command, which must succeed or end with one sentence; that sentence, or ""."""
    sentence = ""
    try:
        call([*map(str, words)])
    except SystemExit as exit:
        captured = capsys.readouterr()
        assert exit.code not in (0, None), words  # noqa: PT017
        sentence = exit.code if isinstance(exit.code, str) else captured.err
    capsys.readouterr()
    if not sentence:
        return ""
    text = sentence.strip()
    assert "\n" not in text, (words, text)
    assert text.endswith((".", "?")), (words, text)
    assert text.isprintable(), (words, text)
    return text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("raw") / "raw", count=12, gap_every=3, size=(32, 32))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """What a command writes to a relative path stays in the test's folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Both would start Ray, and more than one worker other processes.
PREPARATION_FLAGS = sorted(set(PreparationSettings.model_fields) - {"address"})
SWITCHES = {"official_only", "follow_links", "preview", "fast"}


def test_any_setting_of_process(raw, elsewhere, capsys):
    succeeded = []

    @SOON
    @given(st.sampled_from(PREPARATION_FLAGS), VALUES)
    def holds(name, value):
        flag = f"--{name.replace('_', '-')}"
        number = len(list(elsewhere.iterdir()))
        words = [raw, elsewhere / f"data{number}", "--size=32", "--workers=1"]
        words = [word for word in words if not str(word).startswith(f"{flag}=")]
        if name == "workers" and value.strip().isdecimal() and 1 < int(value) < 10_000:
            return
        words.append(flag if name in SWITCHES else f"{flag}={value}")
        succeeded.append(not ends_well(capsys, process.main, *words))

    holds()
    assert any(succeeded)


@pytest.mark.parametrize("flag", ["--scratch", "--verify", "--config", "--address"])
def test_any_text_of_the_other_flags_of_process(raw, elsewhere, capsys, flag):
    @SOON
    @given(WORDS)
    def holds(value):
        ends_well(capsys, process.main, elsewhere / "no-such", "data", f"{flag}={value}")

    holds()


def test_any_source_and_output_of_process(raw, elsewhere, capsys):
    @SOON
    @given(WORDS, WORDS)
    def holds(source, output):
        ends_well(capsys, process.main, f"no-such-{source}", output)

    holds()


EVALUATE_FLAGS = (
    "split", "workers", "features", "features-precision", "inception-weights", "lpips-weights",
    "json",
)  # fmt: skip


def test_any_setting_of_evaluate(model, dataset, elsewhere, capsys):
    @SOON
    @given(st.sampled_from(EVALUATE_FLAGS), VALUES)
    def holds(flag, value):
        if flag == "workers" and value.strip().isdecimal() and 1 <= int(value) <= 256:
            return
        words = ["evaluate", model, f"--{flag}={value}"]
        if flag in ("split", "workers", "json"):
            words += ["--data", elsewhere / "no-such"]
        else:
            words += ["--data", dataset]
        if flag not in ("features", "inception-weights"):
            words.append("--features=efficientnet-lite0")
        ends_well(capsys, main, *words)

    holds()


def test_any_model_and_data_of_evaluate(model, dataset, elsewhere, capsys):
    @SOON
    @given(WORDS, st.booleans())
    def holds(value, is_model):
        pair = (value, dataset) if is_model else (model, value)
        words = ["evaluate", "--features=efficientnet-lite0", f"--data={pair[1]}", "--", pair[0]]
        assert ends_well(capsys, main, *words)

    holds()


SEARCH_FLAGS = sorted({*SearchSettings.model_fields, *LaunchSettings.model_fields})
TRANSLATION_FLAGS = sorted(TranslationSettings.model_fields)
SEARCH_SWITCHES = {"no_published", "dry_run", "resume"}
TRANSLATION_SWITCHES = {"tiles", "celsius", "side_by_side"}
PARTS = st.one_of(
    VALUES,
    st.builds("{}.{}={}".format, st.sampled_from(["wgan", "pix2pix", "gan.x"]), WORDS, VALUES),
    st.builds(
        "wgan.{}={}".format,
        st.sampled_from(["width", "critic_lr", "optimizer", "clip", "batch_size"]),
        st.one_of(VALUES, st.builds("{}:{}".format, NUMBERS, NUMBERS), st.just("adam|sgd")),
    ),
    st.builds("{}{}*{}".format, st.sampled_from(["fid+", "pareto:fid,l1+", ""]), NUMBERS, WORDS),
    st.sampled_from(["fid", "pareto:fid,l1", "random", "median", "pbt", "pack", "auto", "inferno"]),
)
"""Values of flags that have a language of their own, too."""


def flags_of(drawn, switches):
    """The words of drawn settings on a command line."""
    return [
        f"--{name.replace('_', '-')}" + ("" if name in switches else f"={value}")
        for name, value in drawn.items()
    ]


NO_CLUSTER = "127.0.0.1:1"
"""Where nothing listens: a search whose settings are right ends there, before Ray starts."""


def test_any_setting_of_search(dataset, elsewhere, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", NO_CLUSTER)
    base = {"data": dataset, "architectures": "wgan", "features": "efficientnet-lite0"}
    came_to_ray = []

    @settings(SOON, max_examples=25)
    @given(st.dictionaries(st.sampled_from(SEARCH_FLAGS), PARTS, min_size=1, max_size=2))
    def holds(drawn):
        if drawn.get("address") in ("auto", "local"):
            return  # which start Ray, or find another one here
        words = flags_of({**base, "output": elsewhere / "o", **drawn}, SEARCH_SWITCHES)
        sentence = ends_well(capsys, main, "search", *words)
        assert sentence, "a search without a cluster has come to its end"
        came_to_ray.append("No Ray cluster answers" in sentence)

    holds()
    assert any(came_to_ray)
    assert not ray.is_initialized()
    assert not (elsewhere / "o").exists()


def test_any_setting_of_translate(model, elsewhere, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", NO_CLUSTER)
    image(elsewhere / "rgb" / "a.png", size=(32, 32))
    succeeded = []

    @SOON
    @given(
        st.dictionaries(
            st.sampled_from([*TRANSLATION_FLAGS, "source", "target"]),
            st.one_of(st.sampled_from(["image", "generator", "pad", "1", "8", "16"]), PARTS),
            min_size=1,
            max_size=2,
        )
    )
    def holds(drawn):
        workers = drawn.get("workers", "").strip()
        if drawn.get("address") in ("auto", "local") or (workers.isdecimal() and int(workers) > 1):
            return  # which start Ray or further processes
        source, target = elsewhere / "rgb", elsewhere / "thermal"
        if "source" in drawn:
            source = f"no-such-{drawn.pop('source')}"
        if "target" in drawn:
            target = f"target-{drawn.pop('target')}"
        flags = flags_of(drawn, TRANSLATION_SWITCHES)
        sentence = ends_well(capsys, main, "translate", *flags, "--", model, source, target)
        succeeded.append(not sentence)

    holds()
    assert any(succeeded)
    assert not ray.is_initialized()
