"""Run folders: what is written comes back, and whatever is wrong with a file is said in one line."""

import errno
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mncompress import checkpoint
from mncompress.checkpoint import Run, load_record, load_run, load_tensors, save_run, save_tensors
from mncompress.errors import CheckpointError, ConfigError, MncompressError, OutputError
from mncompress.training import train
from mncompress.types import TrainConfig

TENSORS = "replicates.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, x_train=x, y_train=x[:, 0] * x[:, 1], x_test=x, y_test=x[:, 0])
    return TrainConfig(data=str(path), hidden=(2,), inner_width=2, epochs=2, replicates=2, batch_size=32, device="cpu")


class Stop(Exception):
    """Raised by a progress callback."""


@pytest.fixture(scope="module")
def finished(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(config, out=folder)
    return folder


@pytest.fixture(scope="module")
def unfinished(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("unfinished")

    def stop(progress: Any) -> None:
        if progress.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(config, out=folder, progress=stop)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def assert_refused(action: Callable[[], object], words: str = "") -> None:
    with pytest.raises(CheckpointError) as error:
        action()
    assert "\n" not in str(error.value)
    assert words in str(error.value)


def edit_json(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "config.json").read_text())
    edit(document)
    (folder / "config.json").write_text(json.dumps(document))


def edit_tensors(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    with checkpoint.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata)


# Round trips


def test_run_comes_back(finished: Path, config: TrainConfig) -> None:
    run = load_run(finished)
    assert run.config == config
    assert run.record == load_record(finished)
    assert run.folder == finished
    model = load_file(finished / "model.safetensors")
    state = run.network().state_dict()
    assert model.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.items())
    replicates = load_file(finished / TENSORS)
    assert torch.equal(replicates["body.0.linear.weight"][1], run.network(1).layers[0].linear.weight)
    assert not any(p.requires_grad for p in run.network().parameters())


def test_equal_runs_are_equal_bytes(finished: Path, tmp_path: Path) -> None:
    tensors, metadata = load_tensors(finished / TENSORS)
    assert len(metadata) == 3
    for index, order in enumerate(itertools.permutations(metadata)):
        save_tensors(tmp_path / f"{index}", tensors, {name: metadata[name] for name in order})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    again, also = load_tensors(tmp_path / "0")
    assert also == metadata
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_networks_of_a_run_are_independent(finished: Path) -> None:
    run = load_run(finished)
    first = run.network(0)
    before = {name: value.clone() for name, value in run.replicates.items()}
    for value in first.state_dict().values():
        value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in run.replicates.items())


def test_replicate_that_does_not_exist(finished: Path) -> None:
    for replicate in (-1, 2):
        with pytest.raises(ConfigError, match=r"^replicate -?\d does not exist: the run has replicates 0 to 1$"):
            load_run(finished).network(replicate)


def test_saved_run_loads_elsewhere(finished: Path, tmp_path: Path) -> None:
    run = load_run(finished)
    save_run(tmp_path / "deeper" / "copy", run)
    again = load_run(tmp_path / "deeper" / "copy")
    assert again.record == run.record
    assert all(torch.equal(value, again.replicates[name]) for name, value in run.replicates.items())


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"view": whole[1], "transposed": whole.T, "scalar": torch.tensor(2.0), "empty": torch.zeros(0, 3)}
    save_tensors(tmp_path / "x", tensors, {"key": "value"})
    loaded, metadata = load_tensors(tmp_path / "x")
    assert metadata == {"key": "value"}
    assert all(torch.equal(value, loaded[name]) for name, value in tensors.items())


def test_full_disk_is_one_line_and_keeps_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / TENSORS).read_bytes()

    def fail(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match=r"^cannot write [^\n]*No space left[^\n]*$"):
        save_tensors(folder / TENSORS, {"x": torch.ones(3)}, {})
    assert (folder / TENSORS).read_bytes() == before
    assert len(list(folder.iterdir())) == 5


def test_files_have_the_mode_of_any_other(folder: Path) -> None:
    (folder / "other").write_text("x")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


# Damage


def test_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert_refused(lambda place=place: load_run(place), "does not exist; is ")


@pytest.mark.parametrize(("text", "words"), [
    ("", "not valid JSON"), ("{", "not valid JSON"), ('{"schema": ', "not valid JSON"), ("[" * 100_000, "not valid JSON"),
    ("1" * 5000, "not valid JSON"), ("null", "schema None"), ("[]", "schema None"), ("3", "schema None"),
    ('{"schema": "mncompress.run/1"}', "schema 'mncompress.run/1', this version"), ('{"schema": ["a\\n"]}', "schema"),
    ('{"schema": "mncompress.run/2"}', "config")])
def test_config_that_is_none(folder: Path, text: str, words: str) -> None:
    (folder / "config.json").write_text(text)
    assert_refused(lambda: load_run(folder), words)


def test_config_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_bytes(b'{"schema": "\xff\xfe"}')
    assert_refused(lambda: load_run(folder), "not valid JSON")

    def fail(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", fail)
    assert_refused(lambda: load_run(folder), "cannot be read (Permission denied)")


def set_in(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to
    return edit


@pytest.mark.parametrize(("edit", "words"), [
    (set_in("extra", to=1), "extra"), (set_in("config", "extra", to=1), "config.extra"),
    (set_in("config", to=None), "config"), (set_in("config", "epochs", to=0), "epochs must be at least 1"),
    (set_in("config", "hidden", to="7"), "config.hidden"), (set_in("config", "activation", to="a\nb"), "activation"),
    (set_in("config", "hidden", to=[3]), "its network is not that of its config"),
    (set_in("config", "inner", to="tanh"), "its network is not that of its config"),
    (set_in("config", "replicates", to=3), "validation_metric"),
    (set_in("network", "in_features", to=3), "does not fit config.json"),
    (set_in("network", "out_features", to=10**6), "does not fit config.json"),
    (set_in("network", "in_features", to=10**30), "config.json"), (set_in("network", "in_features", to=2**62), "config.json"),
    (set_in("network", "in_features", to=0), "at least one neuron"), (set_in("network", "task", to="classification"), "targets"),
    (set_in("network", "activations", to=[]), "activations"), (set_in("network", "hidden", to=[2, 2]), "activations"),
    (set_in("best", to=2), "best is 2"), (set_in("best", to=-1), "best is -1"), (set_in("best", to=0.5), "best"),
    (set_in("best", to=None), "unfinished run"), (set_in("validation_metric", to=[]), "validation_metric"),
    (set_in("validation_metric", to=[None, None]), "epoch is"), (set_in("epoch", to=[]), "epoch is"),
    (set_in("kept", to=[0]), "kept is"), (set_in("kept", to=[1, 0]), "kept is"), (set_in("kept", to=[0, 2]), "kept is"),
    (set_in("validation_metric", to=[float("nan"), 1.0]), "validation_metric"),
    (set_in("validation_metric", to=[float("inf"), 1.0]), "validation_metric"),
    (set_in("initial_max_abs_error", to="x"), "initial_max_abs_error"), (set_in("config", "epochs", to=3), "after 2 epochs")],
    ids=range(31))
def test_config_that_is_wrong(folder: Path, edit: Callable[[dict[str, Any]], None], words: str) -> None:
    edit_json(folder, edit)
    assert_refused(lambda: load_run(folder), words)


@pytest.mark.parametrize("field", ["config", "network", "data_hash", "samples", "initial_max_abs_error", "metric"])
def test_config_that_lacks_a_field(folder: Path, field: str) -> None:
    edit_json(folder, lambda document: document.pop(field))
    assert_refused(lambda: load_run(folder), field)


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{not json at all"])
def test_tensors_that_are_none(folder: Path, content: bytes | None) -> None:
    (folder / TENSORS).unlink()
    if content is not None:
        (folder / TENSORS).write_bytes(content)
    assert_refused(lambda: load_run(folder), "does not exist" if content is None else "truncated or damaged")


def test_tensors_truncated_anywhere(folder: Path) -> None:
    whole = (folder / TENSORS).read_bytes()
    for length in range(0, len(whole), 23):
        (folder / TENSORS).write_bytes(whole[:length])
        assert_refused(lambda: load_run(folder), "truncated or damaged")


WEIGHT = "body.0.linear.weight"


@pytest.mark.parametrize(("edit", "words"), [
    (lambda t: t.pop(WEIGHT), f"{WEIGHT!r} is missing"), (lambda t: t.update(extra=torch.ones(1)), "'extra' is missing or unknown"),
    (lambda t: t.update({WEIGHT: torch.ones(2, 2)}), "expected torch.float32 (2, 2, 2)"),
    (lambda t: t.update({WEIGHT: t[WEIGHT].double()}), "torch.float64"),
    (lambda t: t.update({WEIGHT: t[WEIGHT].to(torch.bfloat16)}), "torch.bfloat16"),
    (lambda t: t.update({WEIGHT: t[WEIGHT].to(torch.float8_e4m3fn)}), "torch.float8"),
    (lambda t: t.update({WEIGHT: t[WEIGHT].to(torch.complex64)}), "torch.complex64"),
    (lambda t: t.update({WEIGHT: t[WEIGHT] > 0}), "torch.bool"),
    (lambda t: t[WEIGHT].fill_(torch.nan), "not finite"), (lambda t: t["features.scale"].fill_(torch.inf), "not finite")])
def test_tensors_that_do_not_fit(folder: Path, edit: Callable[[dict[str, Tensor]], object], words: str) -> None:
    edit_tensors(folder / TENSORS, edit)
    assert_refused(lambda: load_run(folder), words)


def test_diverged_replicate_may_hold_anything(folder: Path) -> None:
    other = 1 - load_run(folder).best
    edit_tensors(folder / TENSORS, lambda t: t[WEIGHT][other].fill_(torch.nan))
    assert_refused(lambda: load_run(folder), f"not finite in replicate {other}")
    for field in ("validation_metric", "epoch"):
        edit_json(folder, lambda document, field=field: document[field].__setitem__(other, None))
    run = load_run(folder)
    with pytest.raises(ConfigError, match=f"^replicate {other} diverged"):
        run.network(other)


# Damage to what is needed to resume


@pytest.fixture
def halfway(unfinished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unfinished, tmp_path / "halfway"))


PARAMETER = "parameters.0.linear.weight"


@pytest.mark.parametrize("edit", [
    lambda t: t.pop(PARAMETER), lambda t: t.pop("optimizer.first"), lambda t: t.pop("optimizer.steps"),
    lambda t: t.update({PARAMETER: torch.ones(2, 2)}), lambda t: t.update({"optimizer.first": torch.ones(1)}),
    lambda t: t.update({PARAMETER: t[PARAMETER].to(torch.complex64)}),
    lambda t: t.update({"optimizer.second": t[PARAMETER].double()}),
    lambda t: t.update({"optimizer.steps": torch.ones(3)}), lambda t: t[PARAMETER].fill_(torch.nan)], ids=range(9))
def test_checkpoint_that_does_not_fit(halfway: Path, config: TrainConfig, edit: Callable[[dict[str, Tensor]], object]) -> None:
    edit_tensors(halfway / "checkpoint.safetensors", edit)
    assert_refused(lambda: train(config, out=halfway, resume=True), "--overwrite")


@pytest.mark.parametrize(("metadata", "words"), [
    ({}, "config"), ({"epoch": None}, "epoch"), ({"epoch": "x"}, "invalid literal"), ({"epoch": "0"}, "do not fit"),
    ({"epoch": "-1"}, "do not fit"), ({"epoch": "2"}, "do not fit"), ({"config": "{}"}, "another configuration")], ids=str)
def test_checkpoint_with_other_metadata(
        halfway: Path, config: TrainConfig, metadata: dict[str, str | None], words: str) -> None:
    path = halfway / "checkpoint.safetensors"
    tensors, before = load_tensors(path)
    changed = {key: value for key, value in (before | metadata).items() if value is not None} if metadata else {}
    save_file(tensors, path, changed)
    assert_refused(lambda: train(config, out=halfway, resume=True), words)


@pytest.mark.parametrize("edit", [
    lambda text: None, lambda text: "", lambda text: text.splitlines()[0] + "\n", lambda text: text.replace("epoch,", "x,"),
    lambda text: text[:-60], lambda text: "\n".join(text.splitlines()[:-1]), lambda text: text + text.splitlines()[-1],
    lambda text: text.replace("\n1,1,", "\n1,7,"), lambda text: text.replace("\n1,1,", "\n1,,"), lambda text: text + "\0",
    lambda text: text.splitlines()[0] + "\n1,0,nan,nan,nan,1\n1,1,nan,nan,nan,1\n",
    lambda text: text[:90] + '"' * 200_000], ids=range(12))
def test_metrics_that_are_damaged(halfway: Path, config: TrainConfig, edit: Callable[[str], str | None]) -> None:
    path = halfway / "metrics.csv"
    text = edit(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert_refused(lambda: train(config, out=halfway, resume=True), "--overwrite")


def test_lost_checkpoint_starts_again(halfway: Path, finished: Path, config: TrainConfig) -> None:
    (halfway / "checkpoint.safetensors").unlink()
    (halfway / "metrics.csv").unlink()
    run, expected = train(config, out=halfway, resume=True), load_run(finished)
    assert all(torch.equal(value, expected.replicates[name]) for name, value in run.replicates.items())


# Random damage


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One random damage: flipped bits, a cut, a doubled or missing piece, or random bytes."""
    data, kind = bytearray(content), rng.integers(5)
    a, b = sorted(int(v) for v in rng.integers(0, len(data), 2))
    b = min(b, a + 12)
    if kind == 0:
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[a:]
    elif kind == 2:
        del data[a:b + 1]
    elif kind == 3:
        data[a:a] = data[a:b + 1]
    else:
        data[a:b + 1] = rng.bytes(b + 1 - a)
    return bytes(data)


def failure(action: Callable[[], Run]) -> str:
    """The line that `action` failed with, or nothing; any other error than a plain line escapes."""
    try:
        action().network()
    except MncompressError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["config.json", TENSORS, "model.safetensors"])
def test_loading_survives_random_damage(folder: Path, name: str) -> None:
    whole, rng = (folder / name).read_bytes(), np.random.default_rng(0)
    failures = []
    for k in range(150):
        # safetensors headers are the interesting part of files that are mostly weights
        head = min(len(whole), 500) if k % 2 else len(whole)
        (folder / name).write_bytes(mutate(whole[:head], rng) + whole[head:])
        failures.append(failure(lambda: load_run(folder)))
    assert not any("\n" in line for line in failures)
    assert any(failures)


@pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", "metrics.csv"])
def test_resuming_survives_random_damage(unfinished: Path, tmp_path: Path, config: TrainConfig, name: str) -> None:
    whole, rng = (unfinished / name).read_bytes(), np.random.default_rng(1)
    failures = []
    for k in range(60):
        folder = tmp_path / str(k)
        shutil.copytree(unfinished, folder)
        (folder / name).write_bytes(mutate(whole, rng))
        failures.append(failure(lambda folder=folder: train(config, out=folder, resume=True)))
    assert not any("\n" in line for line in failures)
    assert any(failures)
