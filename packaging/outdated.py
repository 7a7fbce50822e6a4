"""What the sealed archive does under a Python that is too old (its `_outdated`).

Only Pythons before 3.9 compile this file, down to 2.7.
"""

import os
import sys

NEWEST = 15  # 3.15
OLDEST = 9
EX_UNAVAILABLE = 69  # sysexits.h


def run(archive):  # type: ignore[no-untyped-def]  # annotations are not in Python 2.7
    """Run the archive with a newer interpreter; return the exit status when there is none.

    The option -X smtpctl marks the new process: a second exchange would lead nowhere.
    """
    if "smtpctl" not in getattr(sys, "_xoptions", {}):
        for minor in range(NEWEST, OLDEST - 1, -1):
            for directory in ("/usr/bin", "/usr/local/bin", "/usr/libexec"):
                for name in ("python3.%d", "platform-python3.%d"):
                    path = os.path.join(directory, name % minor)
                    if os.access(path, os.X_OK):
                        arguments = [path, "-X", "smtpctl", "-ISB", archive]
                        os.execv(path, arguments + sys.argv[1:])  # noqa: S606 - same arguments
    sys.stderr.write(
        "smtpctl: Python 3.9 or later is needed, this is %d.%d (%s)\n"  # noqa: UP031 - 2.7
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )
    return EX_UNAVAILABLE
