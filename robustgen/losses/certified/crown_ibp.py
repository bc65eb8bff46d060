"""CROWN-IBP: linear bounds while the set grows, interval bounds in the end."""

from robustgen.certify import margins_lower
from robustgen.certify.crown import crown_ibp_margins
from robustgen.core import Forward, Loss, Threat, train_forward
from robustgen.knobs import Fraction, checked
from robustgen.losses.certified.bounds import blend
from robustgen.losses.certified.ibp import ibp


@checked
def crown_ibp(threat: Threat, *, kappa: Fraction, beta: Fraction, forward: Forward = train_forward) -> Loss:
    """`ibp` with beta * (margins' bounds by CROWN-IBP) + (1 - beta) * (those by IBP). Zhang et al. 2020
    (arXiv 1906.06316), eq. 14.

    Ramp beta from 1 to 0 while eps rises: IBP alone fits large sets better, and where beta is 0 nothing else is
    computed. The last layer is composed with the differences of logits in both bounds, which is what loss fusion
    (Xu et al. 2020, arXiv 2002.12920) gains but for its bound of the cross-entropy itself.
    Batch norm and metrics as in `ibp`.
    """
    return ibp(threat, kappa=kappa, bounds=blend(crown_ibp_margins, margins_lower, beta), forward=forward)
