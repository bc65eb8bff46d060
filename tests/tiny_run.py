"""A small training run that saves, resumes and obeys signals as experiments/train.py does: tiny_run.py --workdir=DIR.

`--linger=PHASE` names the phase on stdout and waits in it, for a test that has a signal to send.
"""

import argparse
import os
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--workdir", required=True)
parser.add_argument("--linger")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--save_every", type=int, default=10)
args = parser.parse_args()


def linger(phase):
    if phase == args.linger:
        print(phase, flush=True)
        time.sleep(0.5)


linger("import")
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from robustgen import checkpoint, manifest, preemption  # noqa: E402
from robustgen.core import TrainState  # noqa: E402
from robustgen.log import MetricsLog  # noqa: E402

CHUNK = 5


def initial():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"hidden": jax.random.normal(keys[0], (16, 64)) / 4, "out": jax.random.normal(keys[1], (64, 3)) / 8}
    momentum, ema = jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.copy, params)
    return TrainState(jnp.int32(0), params, {}, momentum, ema, jax.random.key_data(jax.random.key(1)))


def step(state, _):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    x = jax.random.normal(key, (32, 16))

    def loss(params):
        logits = jax.nn.relu(x @ params["hidden"]) @ params["out"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(32), jnp.argmax(x[:, :3], 1)])

    value, gradient = jax.value_and_grad(loss)(state.params)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, state.opt_state, gradient)
    params = jax.tree.map(lambda p, m: p - 0.1 * m, state.params, momentum)
    ema = jax.tree.map(lambda e, p: 0.99 * e + 0.01 * p, state.ema, params)
    return state._replace(step=state.step + 1, params=params, opt_state=momentum, ema=ema), value


def chunk(state):
    linger("compile")
    return jax.lax.scan(step, state, None, CHUNK)


def train(folder, state, metrics):
    def save():
        metrics.flush()
        checkpoint.save(folder, int(state.step), state, {"steps": args.steps})

    compiled = jax.jit(chunk, donate_argnums=0)
    while state.step < args.steps:
        state, losses = compiled(state)
        linger("train" if state.step > CHUNK else "first chunk")
        for i, loss in enumerate(losses):
            metrics.write(int(state.step) - CHUNK + i + 1, {"loss": loss})
        if state.step % args.save_every == 0 or preemption.requested():
            save()
        preemption.check()
    save()


def slow_manifest(write):
    def slow(*arguments):
        linger("save")
        write(*arguments)

    return slow


def main():
    folder = os.path.join(args.workdir, "checkpoints")
    manifest.write = slow_manifest(manifest.write)
    with preemption.deferred_signals():
        with preemption.interruptible():
            linger("set-up")
            metrics, state = MetricsLog(os.path.join(args.workdir, "metrics.jsonl")), initial()
            found = checkpoint.restore(folder, state)
            metrics.truncate_after(found.step if found else -1)
        train(folder, found.state if found else state, metrics)
        with preemption.interruptible():
            linger("evaluation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
