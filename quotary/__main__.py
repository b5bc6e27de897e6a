"""``python -m quotary`` is the ``quotary`` command."""

from quotary.cli import main

main()
