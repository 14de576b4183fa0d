"""Settings of Sphinx: `tox -e docs` builds this folder, and every warning is an error."""

from sphinx.util import inspect

import hypernet_tf

project = "hypernet_tf"
author = copyright = "hypernet_tf contributors"
release = version = hypernet_tf.__version__
html_theme = "furo"
html_title = f"hypernet_tf {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # the first heading of an included file is not the page's
myst_heading_anchors = 3
default_role = "code"  # `x` in a docstring is code, as in Markdown
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# A class shows what it defines itself, not the hundreds of members of keras.Model.
autodoc_default_options = {"members": True, "inherited-members": False, "show-inheritance": True}
napoleon_use_ivar = True  # the attributes of a dataclass are described once, by its docstring


def escape_bars(app, what, name, obj, options, lines):
    """Show |x| as it is: in docstrings a bar is a norm, and no substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def show_init(app, what, name, obj, options, signature, return_annotation):
    """Show the arguments of a Keras class, whose `__new__` takes any."""
    if what == "class" and signature == "(*args, **kwargs)":
        init = inspect.signature(obj.__init__, bound_method=True)
        signature = inspect.stringify_signature(init, unqualified_typehints=True)
    return signature, return_annotation


def setup(app):
    """Register the above."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-signature", show_init)
