"""Weights in files: plain `.npz` and `.safetensors`, names to arrays. Never a pickle, which can run any code."""

import io
import os
import pathlib
import types
import zipfile

import jax
import numpy as np

from robustgen.core import Net, PyTree
from robustgen.files import replace_file

Weights = dict[str, np.ndarray]
"""Names to arrays, as they are in the file."""

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar", ".joblib")


class WeightsError(ValueError):
    """Weights that cannot be read, or do not fit, in one line."""


def load_weights(path: str | os.PathLike) -> Weights:
    """The arrays of a `.npz` or `.safetensors` file. The latter needs the extra [weights].

    Raises `WeightsError` where the file is of another kind (for a pickle it says how to convert it), holds objects
    instead of numbers, is damaged or missing.
    """
    path = pathlib.Path(path)
    _refuse_other_kinds(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    return _load_npz(path) if path.suffix == ".npz" else _load_safetensors(path)


def export_weights(net: Net, path: str | os.PathLike) -> pathlib.Path:
    """Writes `named_arrays(net)` to a `.npz` or `.safetensors` file, whole or not at all: `import_net` takes it."""
    path, arrays = pathlib.Path(path), named_arrays(net)
    _refuse_other_kinds(path)
    if path.suffix == ".safetensors":
        return replace_file(path, _safetensors(path).save(arrays))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return replace_file(path, buffer.getvalue())


def named_arrays(net: Net) -> Weights:
    """The arrays of a net by their paths: "params/Conv_0/kernel", "batch_stats/BatchNorm_0/mean", ...

    In C order, since safetensors writes the bytes of any other as if they were.
    """
    leaves = named_leaves({"params": net.params, **net.state})
    return {name: np.asarray(leaf, order="C") for name, leaf in leaves.items()}


def named_leaves(tree: PyTree) -> dict[str, jax.Array]:
    """The leaves of nested dicts by their keys joined with "/"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in paths}


def without_prefix(weights: Weights, prefix: str) -> Weights:
    """Names without `prefix`, where all begin with it ("module." of torch's DataParallel); else as they are."""
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): array for name, array in weights.items()}


def _refuse_other_kinds(path: pathlib.Path) -> None:
    if path.suffix in PICKLES:
        target = path.with_suffix(".safetensors").name
        raise WeightsError(
            f"{path}: {path.suffix} files are pickles or may be, and reading one can run any code, so it is not read. "
            "Where you trust it, convert it in your own environment, its 'state_dict' entry where it has one: "
            "python -c \"import torch, safetensors.torch as s; w = torch.load("
            f"'{path.name}', map_location='cpu'); s.save_file({{k: v.clone() for k, v in w.items()}}, '{target}')\""
        )
    if path.suffix not in (".npz", ".safetensors"):
        raise WeightsError(f"{path}: weights are .npz or .safetensors files")


def _load_npz(path: pathlib.Path) -> Weights:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise WeightsError(
                f"{path}: holds Python objects, and reading them can run any code; save each array by itself: "
                "np.savez(path, **{name: array, ...})"
            ) from error
        raise WeightsError(f"{path}: is damaged, or no .npz file ({error})") from error
    numbers = {name for name, array in found.items() if isinstance(array, np.ndarray) and array.dtype.kind in "fiub"}
    if others := [name for name in found if name not in numbers]:
        raise WeightsError(f"{path}: {listed(others)}: not arrays of numbers (a pickle under another name?)")
    return found


def _load_safetensors(path: pathlib.Path) -> Weights:
    library = _safetensors(path)
    try:
        return library.load_file(path)
    except Exception as error:  # the library has its own and lets others through: all mean that it cannot be read
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error


def _safetensors(path: pathlib.Path) -> types.ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise WeightsError(f"{path}: needs the package safetensors: python -m pip install safetensors") from error
    return safetensors.numpy


def listed(names: list[str], most: int = 4) -> str:
    """The first of the names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
