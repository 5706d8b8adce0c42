"""`python -m jobctl.cli` is `jobctl`."""

from jobctl.cli import main

main()
