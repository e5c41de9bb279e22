"""`python -m guerdon` is the command line."""

from guerdon.cli import main

main()
