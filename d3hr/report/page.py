"""Fills a page template: everything the page shows is inside the one file, and every name in it is escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from d3hr.fileio.atomic import write_bytes
from d3hr.formatting import in_words, percent
from d3hr.report.results import row_title


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write one self-contained HTML page.

    Args:
        path: the file to write.
        template: name of a template of this package.
        values: what the template shows; text is escaped, SVG must be marked safe in the template.
    """
    environment = Environment(
        loader=PackageLoader("d3hr.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["in_words"] = in_words
    environment.filters["row_title"] = row_title
    environment.filters["data_uri"] = _data_uri
    environment.globals["script"] = script = _script()
    environment.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_bytes(path, environment.get_template(template).render(**values).encode(errors="replace"))


def _script() -> str:
    """Return the page's script; its hash in the page's security policy lets this one run, and no other."""
    return (files("d3hr.report") / "templates" / "report.js").read_text(encoding="utf-8")


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
