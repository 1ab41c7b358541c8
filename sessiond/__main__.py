"""Run the command line as ``python -m sessiond``."""

from sessiond.cli.main import main

main()
