"""The command line, installed as `mncompress.cli`. A command parses, calls one library function and prints."""

from ._interrupts import ending_at_once

with ending_at_once():
    from ._app import app as app
