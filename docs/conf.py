"""The Sphinx configuration: ``sphinx-build -W docs OUT`` builds the pages without network access.

``MINIGRAD_DOCS_CACHE`` names the folder that caches the outputs of pages and demos, so that a
rebuild is quick. ``MINIGRAD_DOCS_REAL=1`` runs the demos at their real size. ``-t brief`` leaves
out the copies of the source code, a quarter of the work.
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
exclude_patterns = ["_ext", "_build", "_cache", "benchmarks.md"]  # a guide includes the last one
html_theme = "furo"
html_title = "minigrad"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["minigrad.css"]
html_show_sphinx = False
html_copy_source = False
html_domain_indices = False  # the API pages serve as the index of modules
html_show_search_summary = False  # it fetches pages, which browsers refuse for file:// addresses
html_theme_options = {"navigation_with_keys": False}  # the stepper uses the arrow keys

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # "--step" has two hyphens
pygments_style = "default"  # can be read: the contrast of all colours is 4.5 or more

html_math_renderer = "mathml"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!minigrad).*")]  # other projects, whose index is not fetched
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the Args sections give shapes and units, which types do not
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False  # forward() is documented once, in the base class
autodoc_preserve_defaults = True  # shows a function as it is written, not its address
napoleon_use_param = False  # "x, gamma: ..." describes two parameters
napoleon_custom_sections = [("Attributes", "params_style")]
viewcode_line_numbers = True
suppress_warnings = ["config.cache"]
