"""`python -m livesr` is the `livesr` command."""

from livesr.cli import main

main()
