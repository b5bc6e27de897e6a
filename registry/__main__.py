"""``python -m registry``: what the supervisor starts as its children."""

from registry.cli import main

main()
