"""Hooks of mkdocs: the pages that the code writes, the files at the top of the repository, and links between both."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_HOME = Path(__file__).resolve().parents[1]
# mkdocs loads this file by its path.
sys.path.insert(0, str(_HOME))

from website.fences import plain_fences  # noqa: E402
from website.reference import pages  # noqa: E402

#: The files at the top of the repository that are pages of the site, by their place there.
_TOP = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RESPONSIBLE_USE.md": "responsible-use.md",
    "SECURITY.md": "security.md",
}
#: The list of documents, which would be a second home page.
_LIST = "documents.md"
#: Pages of the generated reference whose tables end in a column of sentences.
_KEYS = {"reference/action-file.md", "reference/command-line.md", "reference/row.md"}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_IMAGE = re.compile(r"(!\[[^\]]*\])\(docs/([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the code writes and what lies at the top of the repository."""
    listed = files.get_file_from_path("README.md")
    if listed is not None:
        files.remove(listed)
        files.append(File.generated(config, _LIST, content=Path(config.docs_dir, "README.md").read_text("utf-8")))
    for name, place in _TOP.items():
        files.append(File.generated(config, place, content=(_HOME / name).read_text("utf-8")))
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links of the repository to pages of the site; what is no page of it is named without a link."""
    place = page.file.src_uri
    if place.startswith("reference/"):
        return markdown
    top = place in _TOP.values()
    markdown = plain_fences(_IMAGE.sub(r"\1(\2)", markdown) if top else markdown)

    def led(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = (_HOME if top else _HOME / "docs") / target
        name = path.resolve().relative_to(_HOME).as_posix()
        if name == "docs/README.md":
            return f"[{words}]({_LIST}{anchor})"
        if name in _TOP:
            return f"[{words}]({_TOP[name]}{anchor})"
        if name.startswith("docs/"):
            return f"[{words}]({name.removeprefix('docs/')}{anchor})"
        return words

    return "".join(
        part if part.startswith("```") else _LINK.sub(led, part) for part in re.split(r"(?ms)(^```.*?^```$)", markdown)
    )


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark tables of keys and options, which `docs/stylesheets/site.css` shows otherwise on a phone.

    Raises PluginError where a code block became a paragraph.
    """
    if "<p>```" in html:
        raise PluginError(f"Expected code blocks in {page.file.src_uri}, got a paragraph that begins with ```.")
    return f'<div class="ttca-keys">{html}</div>' if page.file.src_uri in _KEYS else html


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """Watch what pages are made from, for `mkdocs serve`."""
    config.watch += [str(_HOME / name) for name in ("ttca", "website", *_TOP)]
    return config
