"""Threads that read and write while the generator works, and batches of patches for it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from thermal_search.image_files import Pixels

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Translated(Generic[Item]):
    """An item with what the generator made of its patches; none for an item without patches."""

    item: Item
    patches: Sequence[Tensor]
    generated: list[Pixels] = field(default_factory=list[Pixels])


def in_threads(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
) -> Generator[Result]:
    """The results in the order of the items; at most `ahead` of them are worked on or wait."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_batches(
    items: Iterable[tuple[Item, Sequence[Tensor]]],
    generate: Callable[[Tensor], Pixels],
    pixels: int,
) -> Generator[Translated[Item]]:
    """Every item with its generated patches, in order.

    A batch holds patches of several items, of one size and with at most `pixels` pixels in all (but
    at least one patch).

    Args:
        items: each with its patches, [3, height, width].
        generate: from [batch, 3, height, width], uint8, to [batch, height, width].
    """
    entered: deque[Translated[Item]] = deque()
    waiting: deque[tuple[Translated[Item], Tensor]] = deque()

    def run() -> Generator[Translated[Item]]:
        if waiting:
            generated = generate(torch.stack([patch for _, patch in waiting]))
            for (translated, _), image in zip(waiting, generated, strict=True):
                translated.generated.append(image)
            waiting.clear()
        while entered and len(entered[0].generated) == len(entered[0].patches):
            yield entered.popleft()

    for item, patches in items:
        translated = Translated(item, patches)
        if patches and waiting and waiting[0][1].shape != patches[0].shape:
            yield from run()
        entered.append(translated)
        for patch in patches:
            waiting.append((translated, patch))
            if (len(waiting) + 1) * patch[0].numel() > pixels:
                yield from run()
    yield from run()
