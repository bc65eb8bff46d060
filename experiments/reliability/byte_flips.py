"""Flips bytes of a checkpoint and counts how many flips are noticed, with the manifest and by orbax alone.

    python experiments/reliability/byte_flips.py --flips=1000
    python experiments/reliability/byte_flips.py --checkpoints=runs/digits_trades/checkpoints

Positions are uniform over all bytes of the newest step; a flip is noticed if the newest good step is the one before.
"""

import pathlib
import random
import shutil
import tempfile

import jax
import numpy as np
import orbax.checkpoint as orbax
from absl import app, flags, logging

from robustgen import checkpoint, log

_CHECKPOINTS = flags.DEFINE_string("checkpoints", None, "Folder to copy steps from; default: two of a small net.")
_FLIPS = flags.DEFINE_integer("flips", 1000, "How many flips, one at a time.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Draws positions and values.")


def fill(folder: pathlib.Path) -> tuple[int, int]:
    """Two steps to break, in `folder`; returns their numbers."""
    if _CHECKPOINTS.value:
        shutil.copytree(_CHECKPOINTS.value, folder, dirs_exist_ok=True)
    else:
        for step in (1, 2):
            keys = jax.random.split(jax.random.key(step), 6)
            checkpoint.save(folder, step, {f"layer{i}": jax.random.normal(key, (64, 64)) for i, key in enumerate(keys)})
    return checkpoint.steps(folder)[-2], checkpoint.steps(folder)[-1]


def flip(files: list[pathlib.Path], draw: random.Random) -> tuple[pathlib.Path, bytes]:
    """Changes one byte of one file, uniform over all bytes; returns the file and its good contents."""
    file = draw.choices(files, [file.stat().st_size for file in files])[0]
    good = file.read_bytes()
    position = draw.randrange(len(good))
    file.write_bytes(good[:position] + bytes([good[position] ^ draw.randrange(1, 256)]) + good[position + 1 :])
    return file, good


def silently_wrong(path: pathlib.Path, expected: dict[str, np.ndarray]) -> bool:
    """Whether orbax alone reads the step without complaint, and gets other numbers."""
    as_numpy = {name: orbax.RestoreArgs(restore_type=np.ndarray) for name in expected}
    try:
        found = orbax.PyTreeCheckpointer().restore(path / checkpoint.ARRAYS, restore_args=as_numpy)
    except (ValueError, OSError, RuntimeError, LookupError, TypeError):
        return False
    return any(found[name].tobytes() != array.tobytes() for name, array in expected.items())


def main(_: list[str]) -> None:
    """Prints the counts."""
    logging.set_verbosity(logging.ERROR)
    log.hush()
    draw, folder = random.Random(_SEED.value), pathlib.Path(tempfile.mkdtemp())
    before, last = fill(folder)
    expected = checkpoint.load(folder).state
    files = sorted(file for file in (folder / str(last)).rglob("*") if file.is_file())
    noticed = silent = 0
    for _ in range(_FLIPS.value):
        file, good = flip(files, draw)
        noticed += checkpoint.latest(folder) == before
        silent += silently_wrong(folder / str(last), expected)
        file.write_bytes(good)
    assert checkpoint.latest(folder) == last
    size = sum(file.stat().st_size for file in files)
    log.say(f"byte flips   {noticed} of {_FLIPS.value} noticed, over {size} bytes in {len(files)} files")
    log.say(f"orbax alone  {silent} of {_FLIPS.value} read as wrong numbers without complaint")


if __name__ == "__main__":
    app.run(main)
