"""Checkpoints give back exactly what was saved, or say why not."""

import os
import pathlib
import random
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import checkpoint, manifest
from robustgen.checkpoint import CheckpointError
from robustgen.core import TrainState


def state_at(step):
    """Every kind of leaf that training makes: scalars, keys, half precision, nan, no elements, None."""
    draw = np.random.default_rng(step)
    weights, bias = draw.normal(size=(16, 8)), draw.normal(size=8)
    params = {"w": jnp.asarray(weights, jnp.float32), "b": jnp.asarray(bias, jnp.bfloat16)}
    momentum = (jnp.array([jnp.nan, -jnp.inf, -0.0]), None, jnp.zeros((0, 3)), np.arange(3, dtype=np.uint8))
    return TrainState(jnp.int32(step), params, {}, momentum, None, jax.random.key_data(jax.random.key(step)))


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes())
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (1, 2, 3):
        checkpoint.save(folder, step, state_at(step), {"note": f"step {step}"})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of `saved` that a test may break."""
    return shutil.copytree(saved, tmp_path / "copy")


def files_of(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def test_every_leaf_and_meta_come_back_bit_for_bit(saved):
    step, state, meta = checkpoint.restore(saved, state_at(0))
    assert (step, meta) == (3, {"note": "step 3"})
    assert_same(state, state_at(3))
    assert_same(checkpoint.restore(saved, state_at(0), step=1).state, state_at(1))
    assert checkpoint.load(saved).state[".params['w']"].tobytes() == np.asarray(state_at(3).params["w"]).tobytes()


def test_nothing_saved_yet_is_none_and_a_step_that_is_not_there_is_an_error(saved, tmp_path):
    assert checkpoint.restore(tmp_path / "none", state_at(0)) is None
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"no step 7; found \[1, 2, 3\]"):
        checkpoint.load(saved, 7)


def test_old_steps_go_only_after_the_new_one_is_there(folder, monkeypatch):
    checkpoint.save(folder, 4, state_at(4), keep=2)
    assert checkpoint.steps(folder) == [3, 4]
    monkeypatch.setattr(manifest, "publish", lambda *paths: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(CheckpointError, match="step 5 could not be saved: no space left"):
        checkpoint.save(folder, 5, state_at(5), keep=1)
    assert checkpoint.steps(folder) == [3, 4]


def test_flipped_bits_in_any_file_are_detected_and_the_step_before_is_used(folder, capsys):
    draw, files = random.Random(0), files_of(folder / "3")
    for i in range(100):
        file = files[i % len(files)]
        good = file.read_bytes()
        position = draw.randrange(len(good))
        file.write_bytes(good[:position] + bytes([good[position] ^ 1 << draw.randrange(8)]) + good[position + 1 :])
        assert str(file.relative_to(folder / "3")) in checkpoint.damage(folder, 3)
        if i < len(files):
            assert_same(checkpoint.restore(folder, state_at(0)).state, state_at(2))
            told = capsys.readouterr().err
            assert f"{folder}/3 is damaged" in told and file.name in told and told.count("\n") == 1
        file.write_bytes(good)
    assert checkpoint.damage(folder, 3) is None


def swap(a, b):
    a.rename(a.with_name("aside"))
    b.rename(a)
    a.with_name("aside").rename(b)


DAMAGES = {
    "truncated": lambda f: os.truncate(f / "3/arrays/_METADATA", 5),
    "emptied": lambda f: os.truncate(f / "3/MANIFEST", 0),
    "longer": lambda f: os.truncate(f / "3/arrays/_METADATA", 100_000),
    "manifest longer": lambda f: (f / "3/MANIFEST").write_bytes((f / "3/MANIFEST").read_bytes() + b" "),
    "deleted": lambda f: files_of(f / "3/arrays")[-1].unlink(),
    "manifest deleted": lambda f: (f / "3/MANIFEST").unlink(),
    "arrays deleted": lambda f: shutil.rmtree(f / "3/arrays"),
    "file added": lambda f: (f / "3/arrays/more").write_text(""),
    "files swapped": lambda f: swap(f / "3/arrays/_METADATA", f / "3/arrays/_CHECKPOINT_METADATA"),
    "manifest of another step": lambda f: shutil.copy(f / "2/MANIFEST", f / "3/MANIFEST"),
    "whole step of another number": lambda f: (shutil.rmtree(f / "3"), shutil.copytree(f / "1", f / "3")),
    "a file in its place": lambda f: (shutil.rmtree(f / "3"), (f / "3").write_text("")),
    "empty folder": lambda f: (shutil.rmtree(f / "3"), (f / "3").mkdir()),
}


@pytest.mark.parametrize("break_it", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_and_the_step_before_is_used(folder, break_it, capsys):
    break_it(folder)
    assert checkpoint.latest(folder) == 2
    assert checkpoint.load(folder).step == 2
    assert capsys.readouterr().err.startswith(f"warning: {folder}/3 is damaged and not used: ")
    with pytest.raises(CheckpointError, match="3 is damaged: "):
        checkpoint.load(folder, 3)
    checkpoint.save(folder, 3, state_at(3))
    assert_same(checkpoint.restore(folder, state_at(0)).state, state_at(3))


def test_all_steps_damaged_is_an_error_and_not_a_start_from_scratch(folder):
    for step in (1, 2, 3):
        os.truncate(folder / f"{step}/MANIFEST", 10)
    with pytest.raises(CheckpointError, match=r"every step is damaged \[1, 2, 3\]"):
        checkpoint.restore(folder, state_at(0))


def test_a_damaged_later_step_goes_when_training_has_passed_before_it_and_a_whole_one_stays(folder):
    (folder / "3/MANIFEST").unlink()
    checkpoint.save(folder, 1, state_at(1), keep=1)
    assert checkpoint.steps(folder) == [1, 2]
    checkpoint.discard_after(folder, 1)
    assert checkpoint.steps(folder) == [1]


class Killed(BaseException):
    """What no handler of errors catches."""


OPERATIONS = [(pathlib.Path, "rename"), (pathlib.Path, "mkdir"), (pathlib.Path, "write_bytes"), (manifest, "flush"),
              (manifest, "_delete"), (manifest, "write")]  # fmt: skip


@pytest.mark.parametrize("step", [3, 4], ids=["replacing a step", "a new step"])
def test_stopped_before_any_operation_of_a_save_leaves_a_whole_step(folder, step, monkeypatch):
    stops, done = 0, False
    while not done:
        left = [stops]
        with monkeypatch.context() as patch:
            for owner, name in OPERATIONS:
                patch.setattr(owner, name, stopping(getattr(owner, name), left))
            try:
                checkpoint.save(folder, step, state_at(step), keep=1)
                done = True
            except Killed:
                stops += 1
        found = checkpoint.restore(folder, state_at(0))
        assert found.step in (3, step)
        assert_same(found.state, state_at(found.step))
    assert stops > 20
    assert [name for name in os.listdir(folder)] == [str(step)]


def stopping(operation, left):
    def stopped(*args, **kwargs):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return operation(*args, **kwargs)

    return stopped


def test_other_structure_is_told_leaf_by_leaf(saved):
    other = state_at(0)._replace(params={"w": jnp.zeros((16, 9)), "new": jnp.zeros(2)}, key=jnp.zeros(2))
    with pytest.raises(CheckpointError) as told:
        checkpoint.restore(saved, other)
    assert str(told.value).splitlines()[1:] == [
        "  .key: saved uint32[2], this run has float32[2]",
        "  .params['b']: saved bfloat16[8], this run has none",
        "  .params['new']: saved no, this run has float32[2]",
        "  .params['w']: saved float32[16, 8], this run has float32[16, 9]",
    ]


def test_a_leaf_that_is_on_no_particular_device_stays_free(saved):
    restored = checkpoint.restore(saved, state_at(0)).state
    assert not restored.params["w"].committed


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="step 1 could not be saved: .*Not a directory") as told:
        checkpoint.save(tmp_path / "file/below", 1, state_at(1))
    assert "\n" not in str(told.value)


def test_full_disk_is_told_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(CheckpointError, match="0 MB are free"):
        checkpoint.save(folder, 4, state_at(4))
    assert_same(checkpoint.restore(folder, state_at(0)).state, state_at(3))


def test_disk_that_fills_up_while_writing_leaves_the_step_before(folder):
    """A limit on the size of files stands for the full disk: orbax's writes then fail half-way."""
    big, limits = {"w": np.random.default_rng(0).bytes(1 << 20)}, resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"w": np.frombuffer(big["w"], np.uint8)}
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="step 4 could not be saved") as told:
            checkpoint.save(folder, 4, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(told.value)
    assert checkpoint.latest(folder) == 3


def test_typed_keys_are_refused_by_name(tmp_path, key):
    with pytest.raises(TypeError, match=r"\['k'\] is a typed key"):
        checkpoint.save(tmp_path, 1, {"k": key})
