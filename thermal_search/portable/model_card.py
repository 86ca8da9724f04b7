"""MODEL/README.md: what an exported generator is, how good it is, and how to load it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import (
    EDGES_NOTE,
    compare,
    display_name,
    needs_edges_note,
)
from thermal_search.generator import FormatRecord, GeneratorConfig
from thermal_search.images import Temperatures
from thermal_search.markdown import table
from thermal_search.portable.priors import Prior
from thermal_search.tuning.record import SearchRecord

FILE, IMAGES_FILE = "README.md", "images.png"
MARK = "<!-- Written by thermal-search export, which replaces this file. -->"
"""The first line: only such a file is replaced."""


@dataclass(frozen=True)
class LatentDescription:
    """The inputs of a generator beside the RGB image."""

    prior: Prior | None
    size: int
    """Numbers in a latent vector; 0 without one."""

    noise_size: int
    """Numbers of noise for the dropout of one image; 0 without it."""


def model_card(
    record: SearchRecord,
    config: GeneratorConfig,
    latent: LatentDescription,
    *,
    has_images: bool,
) -> str:
    """The text of the card, in Markdown."""
    parts: list[Iterable[str]] = [
        _head(record, config, has_images),
        _numbers(record, config),
        _interface(config, latent),
        *(_format_section(config, latent, record) for record in config.formats.items()),
        _license(),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def _head(record: SearchRecord, config: GeneratorConfig, has_images: bool) -> Iterable[str]:
    plan = record.plan
    yield MARK
    yield f"# RGB to thermal: {config.architecture} at {config.size} pixels"
    yield ""
    yield (
        f"Generates the thermal-infrared image of an RGB image. Trained by thermal-search as "
        f"{config.trial} of a search of {len(record.trials)} trials."
    )
    yield ""
    yield from table(
        ["What", "Value"],
        [
            ["Dataset (digest of its pixels)", f"`{plan.dataset_digest}`"],
            ["Images shown in training", f"{config.images:,}"],
            [
                "Objective of the search",
                "; ".join(f"`{key}` {value:.5g}" for key, value in config.objective.items()),
            ],
            ["Thermal images", _meaning(config.temperatures)],
            ["Parameters", "; ".join(f"`{k}` {v}" for k, v in sorted(config.parameters.items()))],
            ["Protocol of the metrics", "; ".join(f"{k} {v}" for k, v in config.protocol.items())],
        ],
    )
    if has_images:
        yield ""
        yield f"![RGB, real and generated thermal images]({IMAGES_FILE})"


def _meaning(temperatures: Temperatures | None) -> str:
    if temperatures is None:
        return "8-bit: -1 is the coldest and 1 the hottest value of the camera's range"
    return f"-1 is {temperatures.low:g} and 1 is {temperatures.high:g} degrees Celsius"


def _numbers(record: SearchRecord, config: GeneratorConfig) -> Iterable[str]:
    yield "## Metrics"
    yield ""
    yield "On the validation split, with the baselines that take no training:"
    yield ""
    yield from _metrics(config.metrics, record.baselines)
    if config.test_metrics:
        yield ""
        yield "On the test split, measured once:"
        yield ""
        yield from _metrics(config.test_metrics, record.test_baselines)
    comparisons = compare(config.metrics, record.baselines, record.metric)
    if comparisons:
        yield ""
        yield from (f"{comparison.sentence()}  " for comparison in comparisons)
        if needs_edges_note(comparisons):
            yield EDGES_NOTE


def _metrics(metrics: Mapping[str, float], baselines: Baselines) -> Iterable[str]:
    heads = ["Metric", "Generator", *(display_name(name) for name in baselines)]
    rows = [
        [
            f"`{name}`",
            f"{value:.5g}",
            *(f"{b[name]:.5g}" if name in b else "" for b in baselines.values()),
        ]
        for name, value in metrics.items()
    ]
    return table(heads, rows)


def _interface(config: GeneratorConfig, latent: LatentDescription) -> Iterable[str]:
    sizes = {record.size_multiple for record in config.formats.values()} - {0}
    yield "## Inputs and output"
    yield ""
    yield from table(
        ["Name", "float32", "Meaning"],
        [
            [
                "`rgb`",
                "[batch, 3, height, width]",
                "the RGB image in -1 .. 1: pixel / 127.5 - 1",
            ],
            *(
                [["`z`", f"[batch, {latent.size}]", f"latent vectors, {latent.prior.words}"]]
                if latent.prior
                else []
            ),
            *(
                [
                    [
                        "`noise`",
                        f"[batch, {latent.noise_size}]",
                        "uniform in 0 .. 1: the dropout that stays active after training; a "
                        "feature is dropped if its number is below the dropout's probability",
                    ]
                ]
                if latent.noise_size
                else []
            ),
            ["`thermal` (output)", "[batch, 1, height, width]", "the thermal image in -1 .. 1"],
        ],
    )
    yield ""
    if sizes:
        yield (
            f"Height and width may be any multiples of {min(sizes)}; it was trained at "
            f"{config.size} x {config.size}."
        )
    else:
        yield f"Height and width are {config.size}."
    if latent.prior or latent.noise_size:
        yield "Equal `" + "` and `".join(_drawn(latent)) + "` generate equal images."
    else:
        yield "It has no latent: equal RGB images generate equal thermal images."


def _drawn(latent: LatentDescription) -> list[str]:
    return [*(["z"] if latent.prior else []), *(["noise"] if latent.noise_size else [])]


def _format_section(
    config: GeneratorConfig, latent: LatentDescription, item: tuple[str, FormatRecord]
) -> Iterable[str]:
    name, record = item
    yield f"## Load {record.file}"
    yield ""
    yield (
        f"Compared with the trained generator on {record.compared_on}: the greatest difference is "
        f"{record.difference:.2g} in -1 .. 1."
    )
    yield ""
    yield "```python"
    if name == "safetensors":
        yield "import thermal_search"
        yield "from PIL import Image"
        yield ""
        yield 'thermal = thermal_search.load_generator(".")(Image.open("rgb.png"))'
        yield 'thermal.save("thermal.png")'
    elif name == "pt2":
        yield from _pt2_lines(config, latent, record)
    else:
        yield from _onnx_lines(config, latent, record)
    yield "```"


def _pt2_lines(
    config: GeneratorConfig, latent: LatentDescription, record: FormatRecord
) -> Iterable[str]:
    yield "import numpy, torch"
    yield "from PIL import Image"
    yield ""
    if _drawn(latent):
        yield "random = torch.Generator().manual_seed(0)"
    image = f'Image.open("rgb.png").convert("RGB").resize(({config.size}, {config.size}))'
    yield f"rgb = torch.from_numpy(numpy.array({image})).permute(2, 0, 1)[None] / 127.5 - 1"
    draws = {"rgb": "rgb"}
    if latent.prior:
        draws["z"] = latent.prior.torch_code.format(size=latent.size)
    if latent.noise_size:
        draws["noise"] = f"torch.rand(1, {latent.noise_size}, generator=random)"
    arguments = ", ".join(draws.get(name, "None") for name in _call_order(draws))
    yield f'network = torch.export.load("{record.file}").module()'
    yield f"thermal = (network({arguments})[0, 0].detach() + 1) * 127.5"
    yield 'Image.fromarray(thermal.round().clamp(0, 255).byte().numpy()).save("thermal.png")'


def _call_order(draws: Mapping[str, str]) -> Sequence[str]:
    names = ("rgb", "z", "noise")
    return names[: max(names.index(name) for name in draws) + 1]


def _onnx_lines(
    config: GeneratorConfig, latent: LatentDescription, record: FormatRecord
) -> Iterable[str]:
    code = latent.prior.numpy_code if latent.prior else ""
    yield "import numpy, onnxruntime" + (", scipy.stats" if "scipy" in code else "")
    yield "from PIL import Image"
    yield ""
    if _drawn(latent):
        yield "random = numpy.random.default_rng(0)"
    image = f'Image.open("rgb.png").convert("RGB").resize(({config.size}, {config.size}))'
    yield f'rgb = numpy.array({image}, "float32").transpose(2, 0, 1)[None] / 127.5 - 1'
    inputs = ['"rgb": rgb']
    if latent.prior:
        inputs.append(f'"z": {code.format(size=latent.size)}')
    if latent.noise_size:
        inputs.append(f'"noise": random.random((1, {latent.noise_size}), "float32")')
    yield f'session = onnxruntime.InferenceSession("{record.file}")'
    yield f"thermal = (session.run(None, {{{', '.join(inputs)}}})[0][0, 0] + 1) * 127.5"
    yield 'Image.fromarray(thermal.round().clip(0, 255).astype("uint8")).save("thermal.png")'


def _license() -> Iterable[str]:
    yield "## License"
    yield ""
    yield (
        "The code of thermal-search, which trained this generator, is under the MIT license. What "
        "may be done with the weights also depends on the license of the dataset."
    )
