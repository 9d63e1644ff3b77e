"""Ctrl-C while the command line loads, and that the handler of whoever imports it stays."""

import signal
import subprocess
import sys

import pytest
from pydantic_core import SchemaError

from mncompress.types import Budget, _json, to_json

INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
START = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-c", START + code], capture_output=True, text=True, check=False)


def test_loading_is_ended_at_once() -> None:
    done = run(f"from mncompress.cli._interrupts import ending_at_once\nwith ending_at_once():\n    try: {INTERRUPT}\n"
               "    except BaseException: pass\n    print('went on')")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mncompress: interrupted\n")


def test_work_is_interrupted_by_an_exception() -> None:
    done = run("from mncompress.cli._interrupts import begin_work, ending_at_once\nwith ending_at_once():\n    begin_work()\n"
               f"    try: {INTERRUPT}\n    except KeyboardInterrupt: print('tidied up')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "tidied up\n", "")


def test_an_interruption_that_a_library_makes_something_else_of_stays_one() -> None:
    done = run("import typer\nfrom mncompress.cli._errors import exit_codes\n"
               "from mncompress.cli._interrupts import begin_work, ending_at_once\n"
               "def work():\n"
               f"    try: {INTERRUPT}\n"
               "    except KeyboardInterrupt: raise ValueError('Invalid affine transformation matrix') from None\n"
               "with ending_at_once():\n    begin_work()\n    try:\n        with exit_codes(): work()\n"
               "    except typer.Exit as end: print(end.exit_code)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "130\n", "mncompress: interrupted\n")


def test_the_command_line_ends_at_once() -> None:
    done = run("import mncompress.cli._app as loaded\nfrom mncompress.cli import app\n"
               f"loaded.print_version = None\nimport typer.main\ntyper.main.get_command = lambda self: {INTERRUPT}\napp([])")
    assert (done.returncode, done.stderr) == (130, "mncompress: interrupted\n")


@pytest.mark.parametrize("handler", ["signal.default_int_handler", "signal.SIG_IGN", "lambda number, frame: None"])
def test_importing_it_changes_no_handler(handler: str) -> None:
    done = run(f"handler = {handler}\nsignal.signal(signal.SIGINT, handler)\nimport mncompress.cli\n"
               "print(signal.getsignal(signal.SIGINT) is handler or signal.getsignal(signal.SIGINT) == handler)")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_thread_has_no_say() -> None:
    done = run("import threading\nfrom mncompress.cli._interrupts import ending_at_once\n"
               "def work():\n    with ending_at_once(): print('in')\n"
               "thread = threading.Thread(target=work)\nthread.start()\nthread.join()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_that_pydantic_wraps_stays_one(monkeypatch):
    class Interrupted:
        def __init__(self, cls):
            raise SchemaError(message)

    monkeypatch.setattr(_json, "TypeAdapter", Interrupted)
    monkeypatch.setattr(_json, "_adapters", {})
    message = 'Error building "literal" validator:\n  KeyboardInterrupt: '
    with pytest.raises(KeyboardInterrupt):
        to_json(Budget())
    message = "something else"
    with pytest.raises(SchemaError):
        to_json(Budget())
