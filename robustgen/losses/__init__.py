"""Losses: `(net, batch, key) -> (scalar, Aux)`."""

from robustgen.losses.certified import ibp as ibp
from robustgen.losses.pgd_at import pgd_at as pgd_at
from robustgen.losses.standard import standard as standard
from robustgen.losses.trades import trades as trades
