"""Settings of the documentation."""

project = "pyrogen"
author = "The pyrogen developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
autodoc_typehints = "signature"
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
