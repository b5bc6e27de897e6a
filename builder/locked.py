"""Start a program of the locked tools inside the sandbox, where no file system layout exists.

The loader is told where the libraries are (``nix/scripts/python.sh`` exports both folders).
"""

import os


def tool(name: str) -> list[str]:
    """Return the words that start ``usr/bin/name`` of the tools tree."""
    libraries = os.environ["LIBRARIES"]
    program = f"{os.environ['TOOLS']}/usr/bin/{name}"
    return [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, "--argv0", name, program]
