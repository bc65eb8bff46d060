"""Certified training: losses of bounds, and what keeps bounds trainable."""

from robustgen.losses.certified.bounds import Bounds as Bounds
from robustgen.losses.certified.bounds import blend as blend  # bounds between two, CROWN-IBP and IBP say
from robustgen.losses.certified.crown_ibp import crown_ibp as crown_ibp  # linear bounds first, then intervals
from robustgen.losses.certified.expressive import cc_ibp as cc_ibp  # between attack and bound: margins are mixed
from robustgen.losses.certified.expressive import exp_ibp as exp_ibp  # logarithms of losses are mixed
from robustgen.losses.certified.expressive import mtl_ibp as mtl_ibp  # losses are mixed
from robustgen.losses.certified.ibp import ibp as ibp  # bounds of the whole set
from robustgen.losses.certified.regularize import balanced as balanced  # tight bounds and relus of both states
from robustgen.losses.certified.regularize import l1 as l1  # the absolute values of kernels
from robustgen.losses.certified.regularize import relu_inputs as relu_inputs  # bounds of what relus are given
from robustgen.losses.certified.sabr import _small_box as _small_box
from robustgen.losses.certified.sabr import sabr as sabr  # bounds of a small box around an attack
