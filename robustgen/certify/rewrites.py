"""Equations that are taken apart before they are relaxed: `REWRITES`, by the primitive's name."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

Rewrite = Callable[[Mapping[str, Any], Sequence[jax.ShapeDtypeStruct], Sequence[bool]], Callable | None]
"""`rewrite(params, shapes, perturbed) -> function of the operands to trace in the equation's place, or None`."""

REWRITES: Mapping[str, Rewrite] = MappingProxyType({})
