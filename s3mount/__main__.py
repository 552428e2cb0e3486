"""`python -m s3mount` is the command `s3mount`."""

import sys

from s3mount.cli import main

if __name__ == "__main__":
    sys.exit(main())
