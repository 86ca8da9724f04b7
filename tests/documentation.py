"""The Markdown files of the project: their commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SEPARATORS = {"&&", "||", "|", ";", "&", "{", "}"}
OURS = ("thermal-search", "python process.py", "ray submit", "sbatch")
SHELL = {"", "sh", "bash"}
"""Languages of blocks that hold commands; a tree of files or a program's output is `text`."""


def pages() -> list[Path]:
    """Everything that a reader may see, except the notebook."""
    others = ("README.md", "CONTRIBUTING.md", "cluster/README.md", "benchmarks/README.md")
    return [*(ROOT / name for name in others), *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Command:
    """One command of a page, as the shell splits it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)[:100]}"


def commands() -> list[Command]:
    """The commands of all blocks, without assignments before them and redirections after them."""
    found: list[Command] = []
    for page in pages():
        name = str(page.relative_to(ROOT))
        for language, block in FENCE.findall(page.read_text()):
            if language in SHELL:
                found += [Command(name, words) for words in _commands_of(block) if words]
        spans = re.findall(rf"`((?:{'|'.join(OURS)}) [^`]+)`", prose(page))
        lines = [words for span in spans for words in _commands_of(" ".join(span.split()))]
        # `thermal-search fid` alone names the command.
        found += [Command(name, words) for words in lines if len(words) > 2]
    return found


def _commands_of(block: str) -> Iterator[tuple[str, ...]]:
    for line in _whole_lines(block):
        command: list[str] = []
        for word in [*_split(line), ";"]:
            if word in SEPARATORS:
                yield tuple(command)
                command = []
            elif set(word) <= {"<", ">"}:
                yield tuple(command)
                break
            elif command or not re.fullmatch(r"\w+=.*|export|exec", word):
                command.append(word)


def _split(line: str) -> list[str]:
    """Raises ValueError if a quote is not closed."""
    # A command within another one begins like one after another.
    lexer = shlex.shlex(line.replace("$(", "; "), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    return [*lexer]


def _whole_lines(block: str) -> Iterator[str]:
    """Lines, with those that a backslash or an open quote continues."""
    whole = ""
    for line in block.replace("\\\n", " ").splitlines():
        whole += line
        try:
            _split(whole)
        except ValueError:
            whole += "\n"
            continue
        yield whole
        whole = ""
    assert not whole, f"a quote is not closed: {whole}"


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    texts = [re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in texts}
