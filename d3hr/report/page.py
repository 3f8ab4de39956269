"""Fills a page template. The page is one file that contains all that it shows, and every name in it is escaped."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from d3hr.evaluation.choice import mean_spread
from d3hr.fileio.atomic import write_bytes
from d3hr.formatting import data_uri, in_words, percent
from d3hr.report.results import row_title
from d3hr.sets.packing import packed_in_words


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write one self-contained HTML page from a file in ``templates``; text is escaped, so the template must mark SVG as safe.

    The hash of the page's script in its security policy lets this one run, and no other.
    """
    environment = Environment(
        loader=PackageLoader("d3hr.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent, in_words=in_words, row_title=row_title, mean_spread=mean_spread, data_uri=data_uri, packed_in_words=packed_in_words
    )
    script = (files("d3hr.report") / "templates" / "report.js").read_text(encoding="utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(script=script, script_hash=script_hash, **values)
    write_bytes(path, page.encode(errors="replace"))
