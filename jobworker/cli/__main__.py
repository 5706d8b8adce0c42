"""`python -m jobworker.cli` is `jobworker`."""

from jobworker.cli import main

main()
