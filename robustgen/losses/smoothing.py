"""Training for randomized smoothing: base classifiers that vote alike under Gaussian noise.

All draw their noise from per-example keys, so that it does not depend on how a batch is spread over devices, and none
clips the noisy inputs to a box: the certificate is for noise without one. `sigma` is in the units of x, and is to be
that of the certificate. `num_noise` is the number of draws per example (m, or k, in the papers).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from robustgen.attacks.objectives import cross_entropy
from robustgen.core import Array, Attack, Aux, Batch, Forward, Key, Loss, Net, eval_forward, train_forward
from robustgen.knobs import Count, NonNegative, Positive, checked
from robustgen.losses.standard import accuracy
from robustgen.spread import example_keys


@checked
def gaussian(*, sigma: NonNegative, forward: Forward = train_forward) -> Loss:
    """CE(f(x + e), y), e ~ N(0, sigma^2 I): Gaussian augmentation, Cohen et al. 2019 (arXiv 1902.02918), section 3.3.

    One draw an example and step. Metrics: noisy_accuracy.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        noise_key, forward_key = jax.random.split(key)
        noise = gaussian_noise(batch.x, noise_key, sigma, 1)
        logits, net = noisy_logits(forward, net, batch.x, noise, forward_key)
        noisy = accuracy(logits[:, 0], batch.y)
        return jnp.mean(cross_entropy(logits[:, 0], batch.y)), Aux(net.state, {"noisy_accuracy": noisy})

    return loss


@checked
def smoothadv(
    attack: Attack,
    *,
    sigma: NonNegative,
    num_noise: Count,
    attack_forward: Forward = eval_forward,
    adv_forward: Forward = train_forward,
) -> Loss:
    """Mean over draws of CE(f(x' + e_i), y), x' an attack on the smoothed classifier. Salman et al. 2019
    (arXiv 1906.04584), eq. 6 and pseudocode 1.

    The attack is handed z -> log mean_i softmax(f(z + e_i)), so that with `objectives.cross_entropy` it ascends
    -log of the mean probability of y, the paper's J; e_1 ... e_m are the same in all its steps and in training. The
    published one is `pgd(l2(eps), objective=cross_entropy, start=starts.zero, step_size=2 * eps / T, num_steps=T)`,
    eps ramping up from 0 over the first epochs.

    Deviations from the official code (Hadisalman/smoothing-adversarial): all m noisy copies are trained on, as in the
    pseudocode and the code's --train-multi-noise; mini-batches are not split into m parts; the probability is not
    clamped at 1e-20; projection onto ball and box is exact, and a zero gradient is no step instead of a random one.
    SmoothAdv-DDN, the paper's other attack, is not here. Metrics: noisy_accuracy (of x' + e), adv_accuracy (of the
    mean prediction at x').
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        noise_key, attack_key, forward_key = jax.random.split(key, 3)
        noise = gaussian_noise(batch.x, noise_key, sigma, num_noise)
        frozen = jax.lax.stop_gradient(net)

        def smoothed(z: Array) -> Array:
            return mean_prediction(noisy_logits(attack_forward, frozen, z, noise, forward_key)[0])

        x_adv = attack(smoothed, batch.x, batch.y, attack_key)
        logits, net = noisy_logits(adv_forward, net, x_adv, noise, forward_key)
        metrics = {
            "noisy_accuracy": _noisy_accuracy(logits, batch.y),
            "adv_accuracy": accuracy(mean_prediction(logits), batch.y),
        }
        return jnp.mean(_cross_entropies(logits, batch.y)), Aux(net.state, metrics)

    return loss


@checked
def macer(
    *,
    sigma: NonNegative,
    num_noise: Count,
    weight: NonNegative,
    hinge: Positive,
    inverse_temperature: Positive,
    forward: Forward = train_forward,
) -> Loss:
    """CE(mean_i softmax(f(x + e_i)), y) + weight * sigma / 2 * max(hinge - xi, 0) for examples that g is right on.
    MACER, Zhai et al. 2020 (arXiv 2001.02378), algorithm 1.

    xi = Phi^-1(p_1) - Phi^-1(p_2), the two largest of p = mean_i softmax(inverse_temperature * f(x + e_i)), so that
    sigma / 2 * xi is the certified radius of the soft vote. In the paper: k = `num_noise`, lambda = `weight`,
    gamma = `hinge`, beta = `inverse_temperature`; the code's defaults are 16, 12, 8, 16.

    As in the official code (RuntianZ/macer), cross-entropy has temperature 1, and examples whose xi is not finite in
    float32 count as beyond the hinge. Deviation: the logarithm is exact, where the code adds 1e-10.
    Metrics: noisy_accuracy, smoothed_accuracy (of the mean prediction), radius_loss (the second term without weight).
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        noise_key, forward_key = jax.random.split(key)
        noise = gaussian_noise(batch.x, noise_key, sigma, num_noise)
        logits, net = noisy_logits(forward, net, batch.x, noise, forward_key)
        prediction = mean_prediction(logits)
        p = jnp.mean(jax.nn.softmax(inverse_temperature * logits), 1)
        radius_loss = sigma / 2 * jnp.mean(_hinged(p, batch.y, hinge))
        metrics = {
            "noisy_accuracy": _noisy_accuracy(logits, batch.y),
            "smoothed_accuracy": accuracy(prediction, batch.y),
            "radius_loss": radius_loss,
        }
        return jnp.mean(cross_entropy(prediction, batch.y)) + weight * radius_loss, Aux(net.state, metrics)

    return loss


@checked
def consistency(
    *, sigma: NonNegative, num_noise: Count, weight: NonNegative, eta: NonNegative, forward: Forward = train_forward
) -> Loss:
    """mean_i CE(f(x + e_i), y) + weight * mean_i KL(p || p_i) + eta * H(p), p_i = softmax(f(x + e_i)), p their mean.
    Jeong and Shin 2020 (arXiv 2006.04062), section 3; H is the entropy, lambda = `weight`.

    Gradients flow through p, as in the official code (jh-jeong/smoothing-consistency), whose defaults are
    num_noise = 2 (in the paper), weight = 10 and eta = 0.5. Deviations: mini-batches are not split into num_noise
    parts; the logarithm of p is exact, where the code clamps p at 1e-20.
    Metrics: noisy_accuracy, smoothed_accuracy (of p), kl, entropy.
    """

    def loss(net: Net, batch: Batch, key: Key) -> tuple[Array, Aux]:
        noise_key, forward_key = jax.random.split(key)
        noise = gaussian_noise(batch.x, noise_key, sigma, num_noise)
        logits, net = noisy_logits(forward, net, batch.x, noise, forward_key)
        log_p, log_each = mean_prediction(logits), jax.nn.log_softmax(logits)
        p = jnp.exp(log_p)
        divergence = jnp.mean(jnp.sum(p[:, None] * (log_p[:, None] - log_each), -1))
        entropy = -jnp.mean(jnp.sum(p * log_p, -1))
        value = jnp.mean(_cross_entropies(logits, batch.y)) + weight * divergence + eta * entropy
        metrics = {
            "noisy_accuracy": _noisy_accuracy(logits, batch.y),
            "smoothed_accuracy": accuracy(log_p, batch.y),
            "kl": divergence,
            "entropy": entropy,
        }
        return value, Aux(net.state, metrics)

    return loss


def gaussian_noise(x: Array, key: Key, sigma: float | Array, num_noise: int) -> Array:
    """N(0, sigma^2) noise [B, num_noise, ...] for x [B, ...], from `key` or per-example keys [B]."""
    shape = (num_noise, *x.shape[1:])
    return sigma * jax.vmap(lambda one: jax.random.normal(one, shape, x.dtype))(example_keys(key, x.shape[0]))


def noisy_logits(forward: Forward, net: Net, x: Array, noise: Array, key: Key) -> tuple[Array, Net]:
    """Logits [B, m, K] of x + noise [B, m, ...], in one forward pass over all copies; and the net after it."""
    copies = x[:, None] + noise
    logits, net = forward(net, copies.reshape(-1, *x.shape[1:]), key)
    return logits.reshape(*noise.shape[:2], -1), net


def mean_prediction(logits: Array) -> Array:
    """log mean_i softmax(logits_i), [B, K], of logits [B, m, K]: normalised, so cross-entropy takes it as logits."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])


def _cross_entropies(logits: Array, y: Array) -> Array:
    """[m, B], of logits [B, m, K]."""
    return jax.vmap(cross_entropy, (1, None))(logits, y)


def _noisy_accuracy(logits: Array, y: Array) -> Array:
    return jnp.mean(jnp.argmax(logits, -1) == y[:, None], dtype=jnp.float32)


def _hinged(p: Array, y: Array, hinge: float | Array) -> Array:
    """max(hinge - xi, 0) [B] where the largest of p [B, K] is that of y, else 0."""
    (first, second), top = (jnp.moveaxis(found, -1, 0) for found in jax.lax.top_k(p, 2))
    xi = ndtri(first) - ndtri(second)
    counted = (top[0] == y) & jnp.isfinite(xi) & (xi <= hinge)
    first, second = jnp.where(counted, first, 0.5), jnp.where(counted, second, 0.5)  # 0 and 1 have no derivative
    return jnp.where(counted, hinge - ndtri(first) + ndtri(second), 0.0)
