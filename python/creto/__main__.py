"""`python -m creto`: the command line."""

import sys

from creto.cli import main

if __name__ == "__main__":
    sys.exit(main())
