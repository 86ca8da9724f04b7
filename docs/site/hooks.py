"""Hooks of the site: pages whose text lives outside of docs/, and links that lead there.

A file of the project has one place. The hooks show some files of other folders as pages, list the
decisions, and turn links between files into links between pages.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"clusters.md": "cluster/README.md", "contributing.md": "CONTRIBUTING.md"}
"""By page: the file of the project that it shows."""

HOME = {"README.md": "docs/index.md"}
"""The README is the entrance of the repository; the site has its own."""

DECISIONS = "decisions/index.md"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, DECISIONS, content=_decisions()))
    style = Path(__file__).with_name("style.css")
    files.append(File.generated(config, style.name, abs_src_path=str(style)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrites links to files outside of docs/: to their page, or to plain code."""
    uri = page.file.src_uri
    here = PAGES.get(uri, f"docs/{uri}")

    def rewrite(link: "re.Match[str]") -> str:
        text, target = link.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return link[0]
        path, mark, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        shown = _page_of(file)
        if shown is None:
            return text if "`" in text else f"`{file}`"
        return f"[{text}]({posixpath.relpath(shown, posixpath.dirname(uri) or '.')}{mark}{anchor})"

    parts = re.split(r"(^```.*?^```[^\n]*$)", markdown, flags=re.M | re.S)
    return "".join(
        part if number % 2 else LINK.sub(rewrite, part) for number, part in enumerate(parts)
    )


def on_page_content(html: str, **_: Any) -> str:
    """Marks short code, which stays on one line, and labels cells: phones show tables as lists."""
    # Browsers would break flags at their hyphens.
    html = re.sub(r"<code>([^<\n]{1,30})</code>", r'<code class="short">\1</code>', html)
    return re.sub(r"<table>.*?</table>", _label_cells, html, flags=re.S)


def _label_cells(table: "re.Match[str]") -> str:
    """Gives each cell but the first of its row the name of its column, if there are several."""
    labels = ["", *re.findall(r"<th[^>]*>(.*?)</th>", table[0], re.S)[1:]]
    if len(labels) < 3:
        return table[0]

    def label_row(row: "re.Match[str]") -> str:
        names = iter(labels)
        return re.sub("<td", lambda _: _cell(next(names, "")), row[0])

    return re.sub(r"<tr.*?</tr>", label_row, table[0], flags=re.S)


def _cell(label: str) -> str:
    return f'<td data-label="{label}"' if label else "<td"


def _page_of(file: str) -> str | None:
    """The page of the site that shows a file of the project."""
    shown = {source: page for page, source in PAGES.items()}
    file = HOME.get(file, file)
    if file in shown:
        return shown[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else None


def _decisions() -> str:
    rows = ["# Decisions\n\nWhat was decided that someone may question, and why.\n"]
    for file in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = file.read_text().splitlines()[0].removeprefix("# ")
        rows.append(f"- [{title}]({file.name})")
    return "\n".join(rows) + "\n"
