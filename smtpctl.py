"""Entry of the archive: choose the program by the name it was called by."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the program that sys.argv[0] names; return its exit status."""
    try:
        _occupy_standard_descriptors()
        from smtpd_core.cli.main import run

        return run(os.path.basename(sys.argv[0]), sys.argv[1:])
    except KeyboardInterrupt:
        return 130  # before the command had begun; as a shell reports SIGINT


def _occupy_standard_descriptors() -> None:
    """Make sure no file of a spool can become standard output because that one was closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open("/", os.O_RDONLY)  # takes the lowest free number; writing to it fails


if __name__ == "__main__":
    sys.exit(main())
