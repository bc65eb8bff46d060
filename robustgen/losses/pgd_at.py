"""PGD adversarial training."""

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy
from robustgen.core import Array, Attack, Aux, Batch, Forward, Key, Loss, Net, eval_forward, train_forward
from robustgen.losses.standard import accuracy


def pgd_at(
    attack: Attack, *, attack_forward: Forward = eval_forward, adv_forward: Forward = train_forward
) -> Loss:
    """Mean cross-entropy of adversarial examples alone. Madry et al. 2018 (arXiv 1706.06083), eq. 2.1.

    Batch norm: the attack sees running statistics (as in Bag of Tricks, TRADES, MadryLab/robustness). For the recipe of
    Rice et al. 2020, whose attack runs in training mode, give `attack_forward=batch_forward`; unlike there, the
    running statistics are not updated by attack steps. Metrics: adv_accuracy.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        attack_key, forward_key = jax.random.split(key)
        frozen = jax.lax.stop_gradient(net)
        x_adv = attack(lambda z: attack_forward(frozen, z, forward_key)[0], batch.x, batch.y, attack_key)
        logits, net = adv_forward(net, x_adv, forward_key)
        return jnp.mean(cross_entropy(logits, batch.y)), Aux(net.state, {"adv_accuracy": accuracy(logits, batch.y)})

    return loss
