"""Lists of instances as competitions give them: lines `model.onnx,property.vnnlib,timeout`, paths beside the list."""

import math
import os
import pathlib
from typing import NamedTuple

from robustgen.exchange.errors import BadProperty, BadText
from robustgen.exchange.network import OnnxNet, load_onnx
from robustgen.exchange.property import Property
from robustgen.exchange.reading import existing
from robustgen.exchange.sexpr import Source, number, read_source, shown
from robustgen.exchange.vnnlib import load_vnnlib


class Instance(NamedTuple):
    """A question to a verifier: paths, and the seconds it has."""

    model: pathlib.Path
    property: pathlib.Path
    timeout: float


def load_instances(path: str | os.PathLike) -> tuple[Instance, ...]:
    """The instances in a file; a path whose file is only there gzipped becomes that one's. Raises `BadText`."""
    source = read_source(path, BadText)
    offset, found = 0, []
    for line in source.text.splitlines(keepends=True):
        if line.strip():
            found.append(_instance(source, offset, line.strip()))
        offset += len(line)
    return tuple(found)


def load_question(model: str | os.PathLike, property: str | os.PathLike) -> tuple[OnnxNet, Property]:
    """Both files of an instance. Raises `BadModel` or `BadProperty`, the latter also where the two do not fit."""
    net, asked = load_onnx(model), load_vnnlib(property)
    sizes = (math.prod(net.input_shape), math.prod(net.output_shape))
    if sizes != (asked.num_inputs, asked.num_outputs):
        theirs = f"{asked.num_inputs} inputs and {asked.num_outputs} outputs"
        raise BadProperty(property, 0, 0, f"is about {theirs}; {os.fspath(model)} has {sizes[0]} and {sizes[1]}")
    return net, asked


def _instance(source: Source, offset: int, line: str) -> Instance:
    fields = [field.strip() for field in line.split(",")]
    timeout = number(fields[2]) if len(fields) == 3 else None
    if timeout is None or not 0 < timeout < math.inf or not all(fields):
        raise source.error(offset, f"{shown(line)} is not model.onnx,property.vnnlib,seconds")
    model, question = (existing(pathlib.Path(source.path).parent / field) for field in fields[:2])
    return Instance(model, question, timeout)
