"""Equations that are taken apart before they are relaxed: `REWRITES`, by the primitive's name."""

from collections.abc import Mapping
from types import MappingProxyType

from robustgen.certify.interpreter import Rewrite

REWRITES: Mapping[str, Rewrite] = MappingProxyType({})
