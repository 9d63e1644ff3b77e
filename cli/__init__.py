"""The command line, installed as `mncompress.cli`. A command parses, calls one library function and prints."""

import os
import sys

try:
    from ._app import app as app
except KeyboardInterrupt:
    print("mncompress: interrupted", file=sys.stderr, flush=True)
    os._exit(130)   # nothing was begun, and half-loaded modules complain while they are taken down
