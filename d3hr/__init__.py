"""d3hr: distil an image data set into a few representative images per class, and measure the result honestly.

The public names are listed in ``__init__.pyi``; each is imported when it is first used, so that ``import d3hr`` costs nothing.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("d3hr")
