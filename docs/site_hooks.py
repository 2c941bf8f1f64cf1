"""Pages of the site that are not files of this folder: the README as the front page, and the generated reference."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference import render_reference

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of this folder."""
    for name, page in FROM_ROOT.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        for other, target in FROM_ROOT.items():
            text = text.replace(f"]({other})", f"]({target})")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "reference.md", content=render_reference()))
    return files


def on_page_content(html: str, **_: object) -> str:
    """Let code and tables, which scroll by themselves where they are too wide, be reached by the keyboard."""
    html = html.replace("<pre>", '<pre tabindex="0">')
    opened = '<div class="wide" tabindex="0"><table>'
    return html.replace("<table>", opened).replace("</table>", "</table></div>")
