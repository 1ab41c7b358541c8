"""Lets mkdocs build the site from the files where they are: README.md is its first page.

Links in the repository are relative to their file. The site has the pages of docs/ on top, and
carries every other file that a page links to under its path in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
INTEGRATIONS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("integrations/**/*.md"))
OTHER_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md", *INTEGRATIONS)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#]+)")


def _in_repository(uri: str) -> str:
    """Give the path in the repository of a page of the site."""
    if uri == "index.md":
        return "README.md"
    return uri if uri in OTHER_PAGES else f"docs/{uri}"


def _in_site(path: str) -> str:
    """Give the place in the site of a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/, and the files that a page links to."""
    sources = [*OTHER_PAGES, *(f"docs/{page.src_uri}" for page in files.documentation_pages())]
    wanted = dict.fromkeys(OTHER_PAGES)
    for source in sources:
        for link in _LINK.findall((ROOT / source).read_text("utf-8")):
            wanted[normpath(join(dirname(source), link))] = None
    for path in wanted:
        if not path.startswith("docs/") and (ROOT / path).is_file():
            files.append(File.generated(config, _in_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from paths in the repository into paths in the site."""
    source, place = _in_repository(page.file.src_uri), dirname(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        return relpath(_in_site(normpath(join(dirname(source), found[1]))), place or ".")

    return _LINK.sub(moved, markdown)
