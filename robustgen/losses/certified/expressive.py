"""Losses between an attack and a bound. De Palma et al. 2024 (arXiv 2305.13991).

With alpha = 0 each is adversarial training, with alpha = 1 it is the loss of the bound, and each grows with alpha in
between, as an attack's loss is never above the bound's.

The published recipes attack with one step from a random start (CIFAR-10 at 2/255: 8 steps in 2.1 times the radius), so
the attack's threat is not bound to be the bound's. Batch norm: the attack sees running statistics, the adversarial
batch moves them, the bound uses them so moved, as constants. The official code (alessandrodepalma/expressive-losses)
sends the clean batch through first, which moves them too, and bounds with the statistics of the adversarial batch.
Metrics: adv_accuracy, and certified_accuracy of the training batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.certify import margins_lower
from robustgen.core import Array, Attack, Aux, Batch, Forward, Key, Loss, Net, Threat, eval_forward, train_forward
from robustgen.knobs import Fraction, checked
from robustgen.losses.certified.bounds import Bounds, bounded, proved
from robustgen.losses.standard import accuracy
from robustgen.spread import mean_over_devices


@checked
def mtl_ibp(
    threat: Threat,
    attack: Attack,
    *,
    alpha: Fraction,
    bounds: Bounds = margins_lower,
    attack_forward: Forward = eval_forward,
    adv_forward: Forward = train_forward,
) -> Loss:
    """(1 - alpha) CE(f(x_adv)) + alpha CE(worst logits), means over the batch. Multi-task; section 4.2 of the paper."""

    ends = _ends(threat, attack, bounds, attack_forward, adv_forward)

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        adv_logits, margins, aux = ends(net, batch, key)
        value = (1 - alpha) * cross_entropy(adv_logits, batch.y) + alpha * cross_entropy(-margins, batch.y)
        return jnp.mean(value), aux

    return loss


@checked
def cc_ibp(
    threat: Threat,
    attack: Attack,
    *,
    alpha: Fraction,
    bounds: Bounds = margins_lower,
    attack_forward: Forward = eval_forward,
    adv_forward: Forward = train_forward,
) -> Loss:
    """CE of the margins (1 - alpha) * (those at x_adv) + alpha * (their bounds), mean over the batch. Convex
    combination; section 4.1 of the paper."""

    ends = _ends(threat, attack, bounds, attack_forward, adv_forward)

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        adv_logits, margins, aux = ends(net, batch, key)
        at_adv = jnp.take_along_axis(adv_logits, batch.y[:, None], 1) - adv_logits
        return jnp.mean(cross_entropy(-((1 - alpha) * at_adv + alpha * margins), batch.y)), aux

    return loss


@checked
def exp_ibp(
    threat: Threat,
    attack: Attack,
    *,
    alpha: Fraction,
    bounds: Bounds = margins_lower,
    attack_forward: Forward = eval_forward,
    adv_forward: Forward = train_forward,
) -> Loss:
    """CE(f(x_adv)) ** (1 - alpha) * CE(worst logits) ** alpha of the batch's mean losses. Section 4.3 of the paper.

    The paper writes it for one example; means over the (global) batch come first here as in the official code, since
    the gradient of a single loss to a power below 1 is unbounded where that loss is nearly 0.
    """

    ends = _ends(threat, attack, bounds, attack_forward, adv_forward)

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        adv_logits, margins, aux = ends(net, batch, key)
        means = jnp.mean(cross_entropy(adv_logits, batch.y)), jnp.mean(cross_entropy(-margins, batch.y))
        at_adv, at_bound = (jnp.maximum(mean, jnp.finfo(mean.dtype).tiny) for mean in mean_over_devices(means))
        return at_adv ** (1 - alpha) * at_bound**alpha, aux

    return loss


class _Ends(NamedTuple):
    """What lies at the ends of alpha: adversarial logits [B, K], and bounds of margins [B, K]."""

    adv_logits: Array
    margins: Array
    aux: Aux


def _ends(
    threat: Threat, attack: Attack, bounds: Bounds, attack_forward: Forward, adv_forward: Forward
) -> Callable[[Net, Batch, Key], _Ends]:
    def ends(net: Net, batch: Batch, key: Key) -> _Ends:
        attack_key, forward_key = jax.random.split(key)
        frozen = jax.lax.stop_gradient(net)
        x_adv = attack(lambda z: attack_forward(frozen, z, forward_key)[0], batch.x, batch.y, attack_key)
        logits, moved = adv_forward(net, x_adv, forward_key)
        margins = bounds(bounded(moved), batch.x, batch.y, threat)
        metrics = {"adv_accuracy": accuracy(logits, batch.y), "certified_accuracy": proved(margins, batch.y)}
        return _Ends(logits, margins, Aux(moved.state, metrics))

    return ends
