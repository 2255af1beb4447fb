"""What the site does with what is linked outside of docs: a page for each file or folder, and links to that page.

On a forge such a link leads to the file itself. MkDocs knows only its docs folder, so the same link is rewritten here.
A file's content stands on its page as it is; two documents of the project's root become pages like any other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENTS: Final = {
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
}
"""Documents outside of docs, and the pages that they are on the site; the README is for whoever has the project already."""
_TARGET: Final = re.compile(
    r"^(```+).*?^\1$|`[^`\n]+`"  # code, in which nothing is a link
    r"|(?<=\]\()(?![a-z]+:|#)(?P<target>[^)\s#]+)",
    re.MULTILINE | re.DOTALL,
)
_LEXERS: Final = {
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".service": "ini",
    ".socket": "ini",
    ".py": "python",
}
_SKIPPED: Final = frozenset({"__pycache__"})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages for the documents outside, and for whatever is linked."""
    for name, page in DOCUMENTS.items():
        if files.get_file_from_path(page) is None:
            text = (ROOT / name).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    linked = {
        place
        for file in files.documentation_pages()
        for place in _outside(file.content_string, _source(file.src_uri))
    }
    for place in sorted(linked - {ROOT / name for name in DOCUMENTS}):
        page = _page_of(place)
        files.append(File.generated(config, page, content=_shown(place), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs gives all by name
    """Let links to what is outside lead to its page, and links of what was outside to theirs."""
    here = page.file.src_uri
    source = _source(here)

    def lead(found: re.Match[str]) -> str:
        if found["target"] is None:
            return found[0]
        place = _place(found["target"], source)
        if not place.exists() or not place.is_relative_to(ROOT):
            return found[0]  # MkDocs says that it is broken
        inside = place.is_relative_to(ROOT / "docs")
        target = place.relative_to(ROOT / "docs").as_posix() if inside else _page_of(place)
        return os.path.relpath(target, PurePosixPath(here).parent)

    return _TARGET.sub(lead, markdown)


def _source(page: str) -> Path:
    """Return the file of the project that a page of the site is made from."""
    for name, made in DOCUMENTS.items():
        if page == made and not (ROOT / "docs" / made).exists():
            return ROOT / name
    return ROOT / "docs" / page


def _place(target: str, source: Path) -> Path:
    return Path(os.path.normpath(source.parent / target))


def _outside(text: str, source: Path) -> Iterator[Path]:
    """Yield what a document links to that exists in the project and not in docs."""
    for found in _TARGET.finditer(text):
        if found["target"] is None:
            continue
        place = _place(found["target"], source)
        if place.exists() and place.is_relative_to(ROOT) and not place.is_relative_to(ROOT / "docs"):
            yield place


def _page_of(place: Path) -> str:
    name = place.relative_to(ROOT).as_posix()
    return DOCUMENTS.get(name) or f"files/{name}.md"


def _shown(place: Path) -> str:
    """Write the page of a file, or of a folder with all its files."""
    name = place.relative_to(ROOT).as_posix()
    if place.is_file():
        return f"# {name}\n\n{_block(place)}"
    inside = sorted(
        each for each in place.rglob("*") if each.is_file() and not _SKIPPED.intersection(each.parts)
    )
    parts = [f"## {each.relative_to(place).as_posix()}\n\n{_block(each)}" for each in inside]
    return "\n".join([f"# {name}\n", *parts])


def _block(file: Path) -> str:
    text = file.read_text(encoding="utf-8").rstrip("\n")
    fence = max([2, *(len(each) for each in re.findall(r"`{3,}", text))]) * "`" + "`"
    return f"{fence}{_LEXERS.get(file.suffix, 'text')}\n{text}\n{fence}\n"
