"""A seeded sample of what `benchmarks/hardening.py` runs in full: see `tests/scenarios`."""

import dataclasses
import random
import signal

import pytest
from scenarios import fuzz, growth, hostile, kill, networks, places
from scenarios.data import make_inputs
from scenarios.server import BUG, ESCAPED, EXECUTED, Server

SEED = 7


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def inputs(server, tmp_path_factory):
    return make_inputs(server, tmp_path_factory.mktemp("hardening") / "inputs")


def failures_of(results):
    found = list(results)
    assert all(result.cases for result in found)
    return [failure for result in found for failure in result.failures]


@pytest.mark.parametrize(("name", "count"), [
    ("train", 6), ("train longer", 3), ("train --overwrite", 6), ("compress --overwrite", 2), ("inspect", 2), ("evaluate", 2)])
def test_killed_commands_go_on(server, tmp_path, name, count):
    commands = tuple(command for command in kill.COMMANDS if command.name == name)
    assert failures_of(kill.run(server, tmp_path, count, SEED, commands)) == []


def test_every_command_is_killed_in_the_full_count():
    from mncompress.cli import app

    killed = {command.args[0] for command in kill.COMMANDS}
    assert killed == {command.callback.__name__ for command in app.registered_commands if command.callback} - {"completion"}


def test_a_kill_that_loses_something_is_found(server, tmp_path, monkeypatch):
    monkeypatch.setattr(kill, "_next_args", lambda case, command: [*command.args, "--seed", "5", "--overwrite"])
    commands = tuple(command for command in kill.COMMANDS if command.name == "train")
    assert "left other content in" in failures_of(kill.run(server, tmp_path, 2, SEED, commands))[0]


@pytest.mark.parametrize(("scenario", "count"), [
    (places.limited_files, 4), (places.full_disks, 3), (places.read_only_folders, 4), (places.interrupts, 4)])
def test_bad_places_are_told_in_one_line(server, inputs, scenario, count):
    result = scenario(server, inputs, count, random.Random(SEED))
    assert result.failures == ()
    assert result.measured != "0 told in one line"


def test_second_process_is_refused(inputs):
    with Server() as server:
        assert places.locked_folders(server, inputs, 1, random.Random(SEED)).failures == ()


def test_hostile_files_are_refused(server, tmp_path):
    assert failures_of(hostile.run(server, tmp_path, 1, SEED)) == []


@pytest.mark.parametrize(("kind", "count"), [(kind, max(4, round(8 * kind.weight))) for kind in fuzz.KINDS], ids=lambda value: str(
    getattr(value, "name", "")))
def test_mutated_inputs_are_refused_or_harmless(server, tmp_path, kind, count):
    prepared = fuzz.prepare(server, tmp_path)
    found = [fuzz.run_case(server, prepared, kind, SEED, number) for number in range(count)]
    assert [(number, text, reason) for number, (_, text, reason) in enumerate(found) if reason] == []
    assert any(outcome.code for outcome, _, _ in found)     # something was refused, so something was mutated


def test_fuzzer_sees_what_must_not_happen(server, tmp_path):
    (tmp_path / "box").mkdir()
    bad = {EXECUTED: "import os; os.system('true')", ESCAPED: "open('../elsewhere', 'w')", BUG: "1 / 0"}
    for code, source in bad.items():
        (tmp_path / "box" / "evil.py").write_text(source)
        outcome = server.run(["--exec", "evil.py"], tmp_path / "box", writable=[str(tmp_path / "box/out")])
        assert outcome.code == code, outcome
        assert fuzz._check(outcome)
    outcome = server.run(["--exec", "evil.py"], tmp_path / "box")
    others = [({"timed_out": True}, "hangs"), ({"code": -signal.SIGSEGV}, "crashed"), ({"code": 1, "stderr": "x"}, "code 1")]
    for changes, words in others:
        assert words in fuzz._check(dataclasses.replace(outcome, **changes))


def test_random_networks_agree():
    for number in range(14):
        text, (failure, _, _) = networks.run_case(SEED, number)
        assert failure is None, text


def test_share_of_a_bound():
    import numpy as np

    assert networks._share(np.array([[0.5, 0.0]]), np.array([1.0, 0.0])) == 0.5
    assert networks._share(np.array([[0.0, 1e-9]]), np.array([1.0, 0.0])) > 1


@pytest.mark.parametrize(("what", "sizes"), [("rows", (20_000, 200_000)), ("neurons", (500, 5_000))])
def test_growth_is_proportional(what, sizes):
    small, large = (growth.measure(what, size, SEED) for size in sizes) if what == "rows" else (
        growth.measure_calibration(size, SEED) for size in sizes)
    assert large["calibrate s"] / max(small["calibrate s"], 0.01) < 3 * sizes[1] / sizes[0]    # a slope below 1.5; timings vary
    assert large["calibrate MiB"] < (100 if what == "rows" else 1000)     # however many there are


def test_slopes():
    assert growth.slope_of([10, 100, 1000], [1.0, 10.0, 1000.0], 0.1) == pytest.approx(2.0, rel=1e-12, abs=0)
    assert growth.slope_of([10, 100], [1.0, 0.05], 0.1) is None
    found = {10: {"a s": 1.0, "a MiB": 100.0}, 100: {"a s": 50.0, "a MiB": 100.0}}
    (result,) = growth.summarize("rows", found, [])
    assert result.failures == ("a: s grow with slope 1.70",)
    steep = {10: {"a s": 0.1, "a MiB": 10.0}, 100: {"a s": 0.3, "a MiB": 1000.0}}
    assert next(growth.summarize("rows", steep, [])).failures == ()     # too short for its peak to be seen
    steep[10]["a s"] = 0.3
    assert next(growth.summarize("rows", steep, [])).failures == ("a: MiB grow with slope 2.00",)
