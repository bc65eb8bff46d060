"""Threat sets: what an adversary may turn `x` into. Each factory returns a `core.Threat`.

Every set here lies inside the real ball *and* the real box, not only up to rounding: float32 `x + 8/255` is outside the
ball of radius 8/255 for one pixel in seven, which is harmless to accuracy and fatal to "no example is both certified
and broken". So radii and bounds are rounded inward, by at most 2 units in the last place (norms of many features: by
the rounding of their sum).
"""

from robustgen.threats.boxes import box as box  # limits of each feature, whatever x is
from robustgen.threats.boxes import linf as linf  # every feature by eps, or each by an eps of its own
from robustgen.threats.geometry import round_down as round_down  # a number into a dtype, never above itself
from robustgen.threats.l0 import l0 as l0  # at most eps features, by any amount
from robustgen.threats.l0 import l0_pixels as l0_pixels  # at most eps pixels, in all channels
from robustgen.threats.l1 import l1 as l1  # the sum of absolute changes
from robustgen.threats.l2 import l2 as l2  # the Euclidean norm of the change
