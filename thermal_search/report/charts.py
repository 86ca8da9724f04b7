"""Charts as plain data, in the units of an SVG: `charts.html` draws them.

Colors, widths and fonts are CSS classes (`page.css`), so that one drawing serves light and dark
screens and paper.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LOG_RATIO = 6.0
"""An axis is logarithmic if its values are positive and differ by more than this factor."""

OUTLIER_RATIO = 5.0
"""Values this many times above the 95th percentile are drawn at the edge of the chart."""

MIN_VALUES = 20
"""Among fewer, none is an outlier."""


def number(value: float) -> str:
    """Two decimals, or three significant digits of small values, such as KID."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:#.3g}"


def short(value: float) -> str:
    """As few characters as an axis needs: 0.5, 20k, 1e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration: 12 s, 3.4 min, 5.6 h."""
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Maps values to positions of the drawing."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value, to a tenth; of a value outside, the nearer end."""
        value = min(max(value, self.low), self.high)
        low, high = self._transform(self.low), self._transform(self.high)
        fraction = (self._transform(value) - low) / (high - low)
        return round(self.start + fraction * (self.end - self.start), 1)

    def _transform(self, value: float) -> float:
        return math.log(value) if self.is_log else value

    def ticks(self, count: int = 5) -> list[Tick]:
        values = _log_ticks(self.low, self.high, count) if self.is_log else None
        values = values or _linear_ticks(self.low, self.high, count)
        return [Tick(self(value), short(value)) for value in values]


def scale_of(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    from_zero: bool = False,
    robust: bool = False,
) -> Scale:
    """A scale that shows these values, logarithmic if they differ much; with `robust`, extreme ones
    at its end."""
    ordered = sorted(values)
    if not ordered:
        return Scale(0.0, 1.0, start, end)
    low, high = ordered[0], _robust_maximum(ordered) if robust else ordered[-1]
    if from_zero:
        return Scale(0.0, high if high > 0 else 1.0, start, end)
    if low > 0 and high / low > LOG_RATIO:
        return Scale(low / 1.05, high * 1.05, start, end, is_log=True)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)


def range_scale(low: float, high: float, start: float, end: float, is_log: bool) -> Scale:
    """A scale of a parameter's range."""
    return Scale(low, high if high > low else low + 1, start, end, is_log)


def _robust_maximum(ordered: Sequence[float]) -> float:
    typical = ordered[int(0.95 * (len(ordered) - 1))]
    if len(ordered) >= MIN_VALUES and typical > 0 and ordered[-1] > OUTLIER_RATIO * typical:
        return typical * 1.5
    return ordered[-1]


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    power = 10.0 ** (math.log10(rough) // 1)
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), int((high / step + 1e-9) // 1)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten, every second or third if they are many, with 2 and 5 times them if they are
    few; empty if fewer than two are in the range."""
    decades = range(int(math.log10(low) // 1), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**d for d in decades if low <= 10.0**d <= high]
    if len(ticks) > count + 2:
        return ticks[:: -(-len(ticks) // (count + 1))]
    for factors in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        inside = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(inside) > count + 2:
            break
        ticks = inside
    return ticks if len(ticks) >= 2 else []


@dataclass(frozen=True)
class Line:
    path: str
    style: str
    trial: int | None = None
    """The trial's number, which the page highlights everywhere."""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    style: str
    trial: int | None = None


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    style: str = ""
    anchor: str = "start"


@dataclass
class Chart:
    """One drawing of `width` x `height` units; a unit is a pixel on a phone."""

    title: str
    """Names the chart to those who cannot see it."""

    width: float
    height: float
    x_label: str
    y_label: str
    left: float = 44.0
    right: float = 10.0
    top: float = 20.0
    bottom: float = 34.0
    caption: str = ""
    kind: str = ""
    """`curves` for lines over evaluations, whose values the page shows at the pointer."""

    x_ticks: list[Tick] = field(default_factory=list[Tick])
    y_ticks: list[Tick] = field(default_factory=list[Tick])
    lines: list[Line] = field(default_factory=list[Line])
    dots: list[Dot] = field(default_factory=list[Dot])
    labels: list[Label] = field(default_factory=list[Label])

    @property
    def x_start(self) -> float:
        return self.left

    @property
    def x_end(self) -> float:
        return self.width - self.right

    @property
    def y_start(self) -> float:
        """The position of the lowest value."""
        return self.height - self.bottom

    @property
    def y_end(self) -> float:
        return self.top


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """An SVG path through these positions."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def spread_labels(labels: Sequence[Label], gap: float, low: float, high: float) -> list[Label]:
    """The labels moved up and down so that they do not overlap, in the order of their heights."""
    ordered = sorted(labels, key=lambda label: label.y)
    gap = min(gap, (high - low) / max(len(ordered) - 1, 1))
    positions = [label.y for label in ordered]
    for index in range(1, len(positions)):
        positions[index] = max(positions[index], positions[index - 1] + gap)
    if positions and positions[-1] > high:
        positions[-1] = high
        for index in range(len(positions) - 2, -1, -1):
            positions[index] = min(positions[index], positions[index + 1] - gap)
    return [
        Label(label.x, round(y, 1), label.text, label.style, label.anchor)
        for label, y in zip(ordered, positions, strict=True)
    ]
