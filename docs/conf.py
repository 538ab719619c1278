"""How Sphinx builds these pages: ``sphinx-build -W docs OUT``. Nothing is fetched, nothing is sent.

``MINIGRAD_DOCS_CACHE`` names the folder that keeps what pages and demos printed, so that a rebuild
is quick; ``MINIGRAD_DOCS_REAL=1`` plays the demos at their real size; ``-t brief`` leaves out the
copies of the source code, a quarter of the work.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import minigrad  # noqa: E402

project = "minigrad"
author = "The minigrad authors"
copyright = "the minigrad authors, MIT licence"
version = release = minigrad.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "minigrad_docs.mathml",
    "minigrad_docs.run_pages",
    "minigrad_docs.op_reference",
    "minigrad_docs.command_line",
    "minigrad_docs.architecture",
    "minigrad_docs.gallery",
    "minigrad_docs.breaks",
]
if not tags.has("brief"):  # type: ignore[name-defined]  # noqa: F821, Sphinx provides it
    extensions.append("sphinx.ext.viewcode")
exclude_patterns = ["_ext", "_build", "_cache", "benchmarks.md"]  # the last is part of a guide
html_theme = "furo"
html_title = "minigrad"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["minigrad.css"]
html_show_sphinx = False
html_copy_source = False
html_domain_indices = False  # the API pages are the index of modules
html_show_search_summary = False  # it fetches pages, which a browser refuses for file:// addresses
html_theme_options = {"navigation_with_keys": False}  # the stepper uses the arrow keys

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # "--step" has two hyphens
pygments_style = "friendly"

html_math_renderer = "mathml"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!minigrad).*")]  # other projects: nothing is fetched
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the Args sections say shapes and units, which types do not
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False  # the base class says once what forward() is
autodoc_preserve_defaults = True  # a function as it is written, not its address
napoleon_use_param = False  # "x, gamma: ..." describes two of them
napoleon_custom_sections = [("Attributes", "params_style")]
viewcode_line_numbers = True
suppress_warnings = ["config.cache"]
