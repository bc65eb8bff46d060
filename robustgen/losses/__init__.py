"""Losses: `(net, batch, key) -> (scalar, Aux)`."""

from robustgen.losses.certified import balanced as balanced
from robustgen.losses.certified import cc_ibp as cc_ibp
from robustgen.losses.certified import crown_ibp as crown_ibp
from robustgen.losses.certified import exp_ibp as exp_ibp
from robustgen.losses.certified import ibp as ibp
from robustgen.losses.certified import l1 as l1
from robustgen.losses.certified import mtl_ibp as mtl_ibp
from robustgen.losses.certified import sabr as sabr
from robustgen.losses.pgd_at import pgd_at as pgd_at
from robustgen.losses.standard import standard as standard
from robustgen.losses.trades import trades as trades
