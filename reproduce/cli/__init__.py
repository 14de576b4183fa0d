"""Flags and errors of the commands. Import it first: it keeps TensorFlow quiet in a command."""

import sys

from reproduce.cli import stand_ins
from reproduce.cli.help import is_asked
from reproduce.cli.quiet import load_tensorflow_quietly

# Only in the process of a command: `import reproduce.mnist` redirects nothing.
_SPEC = getattr(sys.modules.get("__main__"), "__spec__", None)
if _SPEC is not None and _SPEC.name.split(".")[0] == "reproduce":
    # The modules of an extension may compute what they register.
    if is_asked(sys.argv) and not any("extension" in word for word in sys.argv):
        stand_ins.install()
    else:
        load_tensorflow_quietly()
