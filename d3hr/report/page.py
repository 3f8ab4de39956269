"""Fills a page template. The page is one file that contains all that it shows, and every name in it is escaped."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from d3hr.fileio.atomic import write_bytes
from d3hr.formatting import data_uri, in_words, percent
from d3hr.report.results import row_title


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write one self-contained HTML page.

    Args:
        path: the file to write.
        template: name of a file in ``templates``.
        values: variables of the template; text is escaped, so the template must mark SVG as safe.
    """
    environment = Environment(
        loader=PackageLoader("d3hr.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["in_words"] = in_words
    environment.filters["row_title"] = row_title
    environment.filters["data_uri"] = data_uri
    environment.globals["script"] = script = _script()
    environment.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_bytes(path, environment.get_template(template).render(**values).encode(errors="replace"))


def _script() -> str:
    """Return the page's script; its hash in the page's security policy lets this one run, and no other."""
    return (files("d3hr.report") / "templates" / "report.js").read_text(encoding="utf-8")
