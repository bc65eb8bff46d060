"""Certified training by bounds of the whole set."""

import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.certify import margins_lower
from robustgen.core import Array, Aux, Batch, Forward, Key, Loss, Net, Threat, train_forward
from robustgen.knobs import Fraction, checked
from robustgen.losses.certified.bounds import Bounds, bounded, proved
from robustgen.losses.standard import accuracy


@checked
def ibp(
    threat: Threat, *, kappa: Fraction, bounds: Bounds = margins_lower, forward: Forward = train_forward
) -> Loss:
    """kappa CE(clean logits) + (1 - kappa) CE(worst logits). Gowal et al. 2018 (arXiv 1810.12715), eq. 13.

    The worst logits are those of the interval bounds with the last layer elided: -margin_lower per class, 0 at y. Ramp
    kappa from 1 to its end and the threat's eps from 0, together, or training collapses to a constant.

    Batch norm: `forward` (training mode) makes the clean logits and moves the running statistics; the bounds use the
    running statistics so moved, as constants, so what is trained is the bound that is certified later. Shi et al. 2021
    (arXiv 2103.17268) bound with the statistics of the clean batch instead. Dropout is off in the bounds.
    Metrics: clean_accuracy and certified_accuracy of the training batch.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        logits, moved = forward(net, batch.x, key)
        margins = bounds(bounded(moved), batch.x, batch.y, threat)
        value = kappa * cross_entropy(logits, batch.y) + (1 - kappa) * cross_entropy(-margins, batch.y)
        metrics = {"clean_accuracy": accuracy(logits, batch.y), "certified_accuracy": proved(margins, batch.y)}
        return jnp.mean(value), Aux(moved.state, metrics)

    return loss
