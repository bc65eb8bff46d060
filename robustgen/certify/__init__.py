"""Bounds that hold over a whole set of inputs, for any JAX function."""

from robustgen.certify.certifiers import alpha_crown as alpha_crown
from robustgen.certify.certifiers import crown as crown
from robustgen.certify.certifiers import crown_ibp as crown_ibp
from robustgen.certify.ibp import bound as bound
from robustgen.certify.ibp import ibp as ibp
from robustgen.certify.ibp import margin_lower as margin_lower
from robustgen.certify.ibp import margins_lower as margins_lower
from robustgen.certify.interpreter import UnknownPrimitive as UnknownPrimitive
from robustgen.certify.rules import RULES as RULES
from robustgen.certify.sound import sound_alpha_crown as sound_alpha_crown
from robustgen.certify.sound import sound_crown as sound_crown
from robustgen.certify.sound import sound_crown_ibp as sound_crown_ibp
