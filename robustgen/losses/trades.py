"""TRADES: clean cross-entropy plus a penalty on how far an adversary can move the prediction."""

import jax
import jax.numpy as jnp

from robustgen.attacks.objectives import cross_entropy, kl
from robustgen.core import Array, Attack, Aux, Batch, Forward, Key, Loss, Net, eval_forward, train_forward
from robustgen.knobs import NonNegative, checked
from robustgen.losses.standard import accuracy


@checked
def trades(
    attack: Attack,
    *,
    beta: NonNegative,
    attack_forward: Forward = eval_forward,
    clean_forward: Forward = train_forward,
    adv_forward: Forward = train_forward,
) -> Loss:
    """CE(f(x), y) + beta * KL(p(x) || p(x')), means over the batch. Zhang et al. 2019 (arXiv 1901.08573), eq. 5.

    Gradients flow through both p(x) and p(x'). `attack` maximises `objectives.kl` against the clean logits; the
    published one is `pgd(threat, objective=kl, start=starts.gaussian(scale=0.001), ...)`.
    Deviations from the official code (yaodongyu/TRADES): the clean logits are computed once, not in every attack step
    and again for the KL term, so running statistics see clean and adversarial batches once each, not clean twice; the
    L2 attack is the threat's projected ascent rather than an SGD on delta.
    Metrics: clean_accuracy, adv_accuracy, clean_loss, kl.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        attack_key, forward_key = jax.random.split(key)
        frozen = jax.lax.stop_gradient(net)
        target = attack_forward(frozen, batch.x, forward_key)[0]
        x_adv = attack(lambda z: attack_forward(frozen, z, forward_key)[0], batch.x, target, attack_key)
        clean_logits, net = clean_forward(net, batch.x, forward_key)
        adv_logits, net = adv_forward(net, x_adv, forward_key)
        clean_loss = jnp.mean(cross_entropy(clean_logits, batch.y))
        divergence = jnp.mean(kl(adv_logits, clean_logits))
        metrics = {
            "clean_accuracy": accuracy(clean_logits, batch.y),
            "adv_accuracy": accuracy(adv_logits, batch.y),
            "clean_loss": clean_loss,
            "kl": divergence,
        }
        return clean_loss + beta * divergence, Aux(net.state, metrics)

    return loss
