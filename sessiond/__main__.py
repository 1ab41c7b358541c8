"""Run the command line as ``python -m sessiond``."""

from sessiond.cli import main

main()
