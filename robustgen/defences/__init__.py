"""Preprocessing defences: `(x, keys) -> x`, put before a model. Each names the adaptive attack that breaks it."""

from robustgen.defences.jpeg import jpeg as jpeg
from robustgen.defences.jpeg import jpeg_420 as jpeg_420
from robustgen.defences.randomise import noise as noise
from robustgen.defences.randomise import resize_pad as resize_pad
from robustgen.defences.squeeze import bit_depth as bit_depth
from robustgen.defences.squeeze import disagreement as disagreement
from robustgen.defences.squeeze import joint as joint
from robustgen.defences.squeeze import median as median
from robustgen.defences.squeeze import rejecting as rejecting
from robustgen.defences.squeeze import threshold_at as threshold_at
from robustgen.defences.squeeze import views as views
from robustgen.defences.total_variation import tv_minimisation as tv_minimisation
from robustgen.defences.transforms import Transform as Transform
from robustgen.defences.transforms import compose as compose
from robustgen.defences.transforms import defended as defended
from robustgen.defences.transforms import fixed as fixed
