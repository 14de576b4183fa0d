"""Flags and errors of the commands. Import it first: it keeps TensorFlow quiet in a command."""

import sys

from reproduce.cli.quiet import load_tensorflow_quietly

# Only in the process of a command: `import reproduce.mnist` redirects nothing.
_SPEC = getattr(sys.modules.get("__main__"), "__spec__", None)
if _SPEC is not None and _SPEC.name.split(".")[0] == "reproduce":
    load_tensorflow_quietly()
