"""SABR: bounds of a small box around an adversarial example, instead of the whole set."""

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.certify import margins_lower
from robustgen.core import Array, Attack, Aux, Batch, Forward, Key, Loss, Net, Threat, eval_forward, train_forward
from robustgen.knobs import Fraction, checked
from robustgen.losses.certified.bounds import Bounds, bounded, proved
from robustgen.losses.standard import accuracy
from robustgen.threats import box


@checked
def sabr(
    threat: Threat,
    attack: Attack,
    *,
    tau: Fraction,
    kappa: Fraction,
    bounds: Bounds = margins_lower,
    attack_forward: Forward = eval_forward,
    forward: Forward = train_forward,
) -> Loss:
    """kappa CE(clean logits) + (1 - kappa) CE(worst logits of `_small_box`). Mueller et al. 2023 (arXiv 2210.04871).

    `threat` is a box (Linf); `tau` is lambda of the paper, the radius of the small box over that of the set: 1 is IBP,
    0 adversarial training. The published recipes end at kappa = 0 and attack by 8 steps of eps / 2 that shrink tenfold
    after 4 and 7 of them. Batch norm as in `ibp`, the attack sees running statistics; the official code
    (eth-sri/SABR) bounds with the statistics of the clean batch. Its shrinking of boxes after relus is not here.
    Metrics: clean_accuracy, and small_box_accuracy: what is proved on the small boxes, not on the whole set.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        attack_key, forward_key = jax.random.split(key)
        frozen = jax.lax.stop_gradient(net)
        x_adv = attack(lambda z: attack_forward(frozen, z, forward_key)[0], batch.x, batch.y, attack_key)
        logits, moved = forward(net, batch.x, forward_key)
        small = _small_box(threat, batch.x, jax.lax.stop_gradient(x_adv), tau)
        margins = bounds(bounded(moved), x_adv, batch.y, small)
        value = kappa * cross_entropy(logits, batch.y) + (1 - kappa) * cross_entropy(-margins, batch.y)
        metrics = {"clean_accuracy": accuracy(logits, batch.y), "small_box_accuracy": proved(margins, batch.y)}
        return jnp.mean(value), Aux(moved.state, metrics)

    return loss


def _small_box(threat: Threat, x: Array, x_adv: Array, tau: Fraction) -> Threat:
    """The box of radius tau * r around `x_adv`, moved into the box around `x` that `threat` is, r being the radius of
    that: each axis's longer way from x to its ends, so that eps is meant and not what a clip leaves of it.

    Mueller et al. 2023, section 3. The official code lets a box that is wider than the set, at clipped pixels, reach
    out of it downwards; here it is cut, as there with --dimwise_scaling.
    """
    lower, upper = threat.bounds(x)
    radius = tau * jnp.maximum(upper - x, x - lower)
    centre = jnp.minimum(jnp.maximum(x_adv, lower + radius), upper - radius)
    return box(jnp.clip(centre - radius, lower, upper), jnp.clip(centre + radius, lower, upper))
