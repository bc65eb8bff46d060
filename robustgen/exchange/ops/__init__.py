"""ONNX's operators as functions, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from robustgen.exchange.ops import constants, elementwise, indexing, linear, pool, reduction, resize, shaping
from robustgen.exchange.ops.call import Call as Call
from robustgen.exchange.ops.call import Op as Op
from robustgen.exchange.ops.call import OpError as OpError

_FILES = (elementwise, linear, pool, reduction, shaping, indexing, resize, constants)

OPS: Mapping[str, Op] = MappingProxyType({name: op for file in _FILES for name, op in file.OPS.items()})
"""Name -> how it is computed. All of one version's meaning: what differs between opsets 7 to 22 asks `call.opset`."""
