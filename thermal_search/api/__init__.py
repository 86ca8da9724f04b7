"""The Python interface, which `import thermal_search as ts` gives (docs/python.md).

    ts.prepare("FLIR_ADAS_v2", "data/flir", size=256)
    result = ts.search(data="data/flir", output="searches/first", trials=60)
    generator = ts.load_generator(result.export())
    thermal = generator(PIL.Image.open("rgb.png"))

Settings have the names of the flags (docs/flags.md), with underscores: `evaluate_every=20_000`. A
setting that cannot be raises SettingsError with one sentence.
"""

from pathlib import Path

from thermal_search.storage import Location

Place = str | Path | Location
"""A folder, or an address in a bucket: s3://bucket/folder or gs://bucket/folder."""
