"""The command line, installed as `mncompress.cli`. A command parses, calls one library function and prints."""

from ._app import app as app
