"""What lies prepared in a TFDS data folder, told from the two small JSON files that TFDS writes beside the records.

Nothing here imports TFDS, so a missing data set is reported at once. Layout: DIR/name[/config]/version/.
"""

import json
import math
import os
import pathlib
import re
from typing import NamedTuple

from robustgen.data.source import DataError


class Prepared(NamedTuple):
    """One prepared data set: `sizes` is the number of examples of each split, `shape` and `dtype` those of an image."""

    name: str
    version: str
    folder: pathlib.Path
    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    sizes: dict[str, int]

    def records(self, split: str) -> list[pathlib.Path]:
        """The record files of a split, sorted."""
        return sorted(self.folder.glob(f"*-{split}.array_record-*-of-*"))


def data_dir(dir: str | None) -> pathlib.Path:
    """`dir`, else `TFDS_DATA_DIR`, else TFDS' own default, `~/tensorflow_datasets`."""
    return pathlib.Path(dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find(name: str, root: pathlib.Path) -> Prepared:
    """The newest version of `name` (`mnist`, `mnist:3.0.1`, `cifar10_corrupted/fog_1`) prepared in `root`.

    Raises `DataError`, with the command to run, where there is none, and where it cannot serve for classification.
    """
    asked, (name, _, version) = name, name.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", name):
        raise DataError(f"{name!r} is no TFDS name: give name or name/config, as in mnist or cifar10_corrupted/fog_1")
    folders = versions(root / name, version)
    if not folders:
        there = ", ".join(sorted({str(f.parent.relative_to(root)) for f in folders_in(root)})) or "nothing"
        raise DataError(
            f"{asked} is not prepared in {root} (there: {there}); run: robustgen prepare {asked} --dir={root}, "
            "or set TFDS_DATA_DIR to where it is"
        )
    return describe(name, folders[-1])


def folders_in(root: pathlib.Path) -> list[pathlib.Path]:
    """The version folders of all that is prepared in `root`, whatever its kind."""
    names = [folder for pattern in ("*/", "*/*/") for folder in sorted(root.glob(pattern))]
    return [version for name in names for version in versions(name)]


def versions(folder: pathlib.Path, version: str = "") -> list[pathlib.Path]:
    """The folders `1.2.3` in a data set's folder that were prepared to the end, oldest first; or `version` alone."""
    found = [f.parent for f in folder.glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", f.parent.name)]
    found = [f for f in found if version in ("", f.name)]
    return sorted(found, key=lambda f: tuple(map(int, f.name.split("."))))


def describe(name: str, folder: pathlib.Path) -> Prepared:
    """Reads what is prepared in `folder`. Raises `DataError` where that is not images of one shape with classes."""
    try:
        info = json.loads((folder / "dataset_info.json").read_bytes())
        features = json.loads((folder / "features.json").read_bytes())["featuresDict"]["features"]
        sizes = {s["name"]: sum(map(int, s.get("shardLengths", ()))) for s in info["splits"]}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is damaged ({error!r}): delete it and run: robustgen prepare {name}") from error
    if info.get("fileFormat") != "array_record":
        root = folder.parents[1 + name.count("/")]
        raise DataError(
            f"{folder} holds {info.get('fileFormat', 'tfrecord')} files, which need TensorFlow to read; "
            f"delete it and run: robustgen prepare {name} --dir={root}"
        )
    shape, dtype = _image(name, features)
    return Prepared(name, folder.name, folder, shape, dtype, _num_classes(name, features), sizes)


def _image(name: str, features: dict) -> tuple[tuple[int, ...], str]:
    node = features.get("image", {})
    node = node.get("image") or node.get("tensor") or {}
    shape = tuple(int(d) for d in node.get("shape", {}).get("dimensions", ()))
    dtype = node.get("dtype")
    if dtype not in ("uint8", "float32") or not shape or math.prod(shape) < 1 or min(shape) < 1:
        raise DataError(f"{name} has no 'image' of one fixed shape, uint8 or float32: has {_listing(features)}")
    return shape, dtype


def _num_classes(name: str, features: dict) -> int:
    node = features.get("label", {}).get("classLabel", {})
    if "numClasses" not in node:
        raise DataError(f"{name} has no 'label' that is a class: has {_listing(features)}")
    return int(node["numClasses"])


def _listing(features: dict) -> str:
    return ", ".join(f"{key} ({node.get('pythonClassName', '?').rsplit('.', 1)[-1]})" for key, node in features.items())
