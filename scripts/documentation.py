"""What the documentation site needs of MkDocs: files of the repository outside docs/, links that lead to them, and the README's table.

Links are written for readers of the repository. Here each is followed to the file it names, and written anew for the place that file has
on the site: docs/speed.md is speed.md there, and any other file keeps its path.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = [
    "SECURITY.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/protocols/*.yaml",
    "benchmarks/results/*.json",
    "examples/**/*",
]
"""Files outside docs/ that the site has too, as patterns; notebooks are pages as well."""
INSTEAD = {"README.md": "docs/index.md", "benchmarks/results": "benchmarks/README.md"}
"""What a link leads to where the site does not have what it names."""
TABLE = re.compile(r"<!-- written by make benchmarks-report -->\n(.*?)<!-- end -->", re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):(<code>)~?")
"""What is left of a role of Sphinx, in a docstring, after Markdown."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/."""
    for pattern in OUTSIDE:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file():
                files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
            if file.suffix == ".ipynb":
                files.append(File.generated(config, file.relative_to(ROOT).with_suffix(".md").as_posix(), content=page_of(file)))
    return files


def page_of(notebook: Path) -> str:
    """Return a notebook as Markdown, with a link to itself below its title."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    title, *rest = [text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```" for cell, text in zip(cells, texts, strict=True)]
    heading, _, intro = title.partition("\n")
    return "\n\n".join([heading, f"Run it yourself: [{notebook.name}]({notebook.name}).", intro, *rest])


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put in the README's table where the page asks for it, and lead links to the files of the site."""
    if "<!-- table of README.md -->" in markdown:
        table = TABLE.search((ROOT / "README.md").read_text(encoding="utf-8"))
        if table is None:
            raise LookupError("README.md has no table of make benchmarks-report")
        markdown = markdown.replace("<!-- table of README.md -->", table[1])
    own = page.file.src_uri
    if page.file.abs_src_path is None:
        return markdown
    folder = Path(page.file.abs_src_path).parent.relative_to(ROOT).as_posix()

    def follow(link: re.Match[str]) -> str:
        named = posixpath.normpath(posixpath.join(folder, link[2]))
        target = INSTEAD.get(named, named.replace(".ipynb", ".md")).removeprefix("docs/")
        return link[1] + posixpath.relpath(target, posixpath.dirname(own) or ".") + (link[3] or "") + link[4]

    return LINK.sub(follow, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Show names that docstrings mark as classes or functions as code."""
    return ROLE.sub(r"\1", html)
