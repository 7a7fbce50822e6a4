"""What the standard library loads late: after a chroot, or when the archive was replaced, too late.

To import this module is to load it all; a sealed process can load nothing more.
"""

# ruff: noqa: F401
from __future__ import annotations

import _strptime  # type: ignore[import-not-found]  # part of the library, without a stub
import asyncio.sslproto
import base64
import concurrent.futures.thread
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.unicode_escape
import encodings.utf_8
import getpass
import grp
import gzip
import hashlib
import hmac
import ipaddress
import linecache
import pwd
import random
import ssl
import stringprep
import tokenize
import traceback
import unicodedata

try:
    import _hashlib
    import ctypes
except ImportError:  # a build without them has nothing that would want them later
    pass
