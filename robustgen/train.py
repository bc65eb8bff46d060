"""One training loop for every loss.

`train_step` is the pure step; `chunk` scans it, so that a whole stretch of training is one compiled call; `fit` is the
host loop around chunks, which guards. It is handed its loss, and imports none; `loop.run` logs, validates, saves and
resumes around it.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustgen.core import Array, Loss, Net, PyTree, Stream, TrainState
from robustgen.knobs import Decay
from robustgen.spread import mean_over_devices

LossAt = Callable[[Array], Loss]
"""A schedule of losses: called with the traced step, so that any knob may follow it."""


class Learner(NamedTuple):
    """What turns batches into a better net: the model's function, the loss, the optimizer and the averaging."""

    apply_fn: Callable
    loss_at: LossAt
    tx: optax.GradientTransformation
    ema_decay: Decay

    def net(self, state: TrainState) -> Net:
        """The net that training moves."""
        return Net(state.params, state.state, self.apply_fn)


class TrainingFailed(RuntimeError):
    """Training cannot go on: the message names the step, what was seen there, and what to try."""


def init(learner: Learner, net: Net, key: Array) -> TrainState:
    """The state before the first step; `key` (a typed key) is all the randomness of the run."""
    ema = {"params": net.params, "state": net.state} if _averages(learner) else {}
    ema = jax.tree.map(jnp.copy, ema)  # the state is donated: no two of its leaves may share a buffer
    return TrainState(jnp.int32(0), net.params, net.state, learner.tx.init(net.params), ema, jax.random.key_data(key))


def final_net(state: TrainState, apply_fn: Callable) -> Net:
    """The net to evaluate: averaged parameters and batch statistics where the run kept them, else the last ones."""
    if state.ema:
        return Net(state.ema["params"], state.ema["state"], apply_fn)
    return Net(state.params, state.state, apply_fn)


def train_step(learner: Learner, state: TrainState, batch: PyTree) -> tuple[TrainState, dict[str, Array]]:
    """One step. Returns the new state and scalars to log: loss, grad_norm, and the loss's own metrics.

    A step whose loss or gradient is not finite changes nothing but the step counter; its metrics show it, and a guard
    (`stop_if_not_finite`) may end the run there.
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    loss = learner.loss_at(state.step)

    def objective(params: PyTree) -> tuple[Array, PyTree]:
        return loss(Net(params, state.state, learner.apply_fn), batch, step_key)

    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    value, aux, grads = mean_over_devices((value, aux, grads))
    updates, opt_state = learner.tx.update(grads, state.opt_state, state.params)
    grad_norm = optax.tree.norm(grads)
    params = optax.apply_updates(state.params, updates)
    averaged = _average(learner, state, {"params": params, "state": aux.state})
    moved = TrainState(state.step, params, aux.state, opt_state, averaged, state.key)
    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    return kept._replace(step=state.step + 1), {"loss": value, "grad_norm": grad_norm, **aux.metrics}


def _averages(learner: Learner) -> bool:
    return isinstance(learner.ema_decay, jax.core.Tracer) or learner.ema_decay > 0


def _average(learner: Learner, state: TrainState, current: PyTree) -> PyTree:
    """Exponential moving average of parameters *and* batch statistics, its decay warmed up as (1 + t) / (10 + t)."""
    if not state.ema:
        return state.ema
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(learner.ema_decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, current)


def chunk(
    learner: Learner, stream: Stream, state: TrainState, *, length: int
) -> tuple[TrainState, dict[str, Array]]:
    """`length` steps in one `lax.scan`; metrics are stacked, [length]. Where chunks begin and end changes no number."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), _STREAM)

    def body(carry: tuple[TrainState, PyTree], _: None) -> tuple[tuple[TrainState, PyTree], dict[str, Array]]:
        state, order = carry
        batch, order = stream.take(order, key, state.step)
        state, metrics = train_step(learner, state, batch)
        return (state, order), metrics

    (state, _), metrics = jax.lax.scan(body, (state, stream.start(key, state.step)), length=length)
    return state, metrics


_STREAM = 2**31 - 1  # folded into the run's key for the data order; step keys fold in the step, which stays below


class Span(NamedTuple):
    """One stretch of training as the host sees it: the last step done, the state after it, and its mean metrics."""

    step: int
    state: TrainState
    metrics: dict[str, np.ndarray]


def fit(
    advance: Callable[[TrainState, int], tuple[TrainState, dict[str, Array]]],
    state: TrainState,
    *,
    num_steps: int,
    span: int,
    guard: Callable[[int, dict[str, np.ndarray]], None] = lambda step, metrics: None,
) -> Iterator[Span]:
    """Trains to `num_steps`, yielding after every `span` steps; a generator, so that the caller logs, validates, saves
    or stops between spans as it likes.

    `advance(state, length)` is a compiled `chunk`. Spans end at multiples of `span` wherever the run was resumed.
    `guard(first_step, metrics [length])` may raise `TrainingFailed`; the state it refused is not yielded.
    """
    step = int(np.max(state.step))
    while step < num_steps:
        length = min(span - step % span, num_steps - step)
        state, metrics = advance(state, length)
        metrics = jax.tree.map(np.asarray, metrics)
        guard(step, metrics)
        step += length
        yield Span(step, state, {name: values.mean(axis=-1) for name, values in metrics.items()})


def stop_if_not_finite(first_step: int, metrics: dict[str, np.ndarray]) -> None:
    """Guard: raises `TrainingFailed` naming the first step with a loss or gradient that is not finite."""
    bad = ~(np.isfinite(metrics["loss"]) & np.isfinite(metrics["grad_norm"]))
    if bad.any():
        at = int(np.argmax(bad))
        raise TrainingFailed(
            f"step {first_step + at}: loss {metrics['loss'][at]:g}, gradient norm {metrics['grad_norm'][at]:g}; "
            "the last checkpoint stays. Try a smaller learning rate, a longer eps ramp, or clip_norm"
        )


def stop_if_collapsed(
    *, num_classes: int, patience: int
) -> Callable[[int, dict[str, np.ndarray]], None]:
    """Guard: raises `TrainingFailed` when training accuracy stays at chance for `patience` steps in a row.

    At chance: within 20 % of 1 / num_classes. Robust training is known to get stuck there without a word (gradient of
    the attack too strong for the learning rate), or to fall back there late.
    """
    stuck = 0

    def guard(first_step: int, metrics: dict[str, np.ndarray]) -> None:
        nonlocal stuck
        accuracy = metrics.get("clean_accuracy", metrics.get("adv_accuracy"))
        if accuracy is None:
            return
        stuck = stuck + len(accuracy) if accuracy.mean() <= 1.2 / num_classes else 0
        if stuck >= patience:
            raise TrainingFailed(
                f"step {first_step + len(accuracy)}: training accuracy has been at chance ({accuracy.mean():.1%}) for "
                f"{stuck} steps. Try a smaller learning rate, a longer eps ramp, or a smaller eps"
            )

    return guard


def steps_in(num_epochs: float, *, num_examples: int, batch_size: int) -> int:
    """Steps in `num_epochs` passes over `num_examples`, the last partial batch of a pass left out; at least 1."""
    return max(1, math.floor(num_epochs * (num_examples // batch_size)))
