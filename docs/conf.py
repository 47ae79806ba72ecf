"""Sphinx configuration: `make docs` builds the site into `docs/_build/html`, without a network."""

import os
import sys
from pathlib import Path

from propose_prob import __version__
from propose_prob.weights import available

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# Notebooks run in folders of their own; tutorial 11 uses the tests' zoo.
os.environ["PYTHONPATH"] = str(HERE.parent)
# Their kernels do not read the reader's own settings, and do not warn of talking over local ports.
profile = HERE / "_build" / "ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)

project = "propose_prob"
author = "the propose_prob developers"
copyright = author  # the name that Sphinx reads
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "api_pages",
    "mathml",
    "view_page",
]
exclude_patterns = ["_build", "_ext"]
if not {"prohmr-cmu17", "prohmr-lifting-cmu17"} <= set(available()):
    exclude_patterns.append("tutorials/05-prohmr.md")
# A type that two parts name alike is no link.
suppress_warnings = ["ref.python"]

# Docstrings say `ProPose.conditional` and `(..., J, 3)` alike: a link where there is such a name,
# code where there is none.
default_role = "py:obj"
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
# Progress bars complain there about missing widgets.
nb_output_stderr = "remove"

html_theme = "furo"
html_title = "propose_prob"
html_static_path = ["_static"]
html_extra_path = ["_build/extra"]
# `view_page` fills it; Sphinx asks for it before.
(HERE / "_build" / "extra").mkdir(parents=True, exist_ok=True)
html_css_files = ["style.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
