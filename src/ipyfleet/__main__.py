"""``python -m ipyfleet`` is the command."""

from ipyfleet.cli import main

main()
