"""How Sphinx builds the documentation: `make docs`. Nothing is fetched, neither here nor by the pages."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "paka"
author = "The paka developers"
copyright = author  # noqa: A001 - Sphinx's name
release = metadata.version("paka-ssl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "configuration", "docstrings"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
# Links to what is not a page of the documentation, such as a file of `conf/`, are for readers of the sources.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # docstrings say types and shapes
napoleon_use_rtype = False
default_role = "code"  # docstrings put code between single backticks

html_theme = "furo"
html_title = "paka"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
