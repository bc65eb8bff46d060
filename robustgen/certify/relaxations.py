"""The linear relaxation of each primitive, by its name: `RELAXATIONS`.

To relax a primitive of your own: `{**RELAXATIONS, "name": relaxation}`. What is linear in its perturbed operands needs
none, and what has none is bounded by the constants of interval arithmetic.
"""

from collections.abc import Mapping
from types import MappingProxyType

from robustgen.certify.planes import Relaxation, maximum, minimum

RELAXATIONS: Mapping[str, Relaxation] = MappingProxyType({"max": maximum, "min": minimum})
