"""How robust is a trained net, at least and at most? A ladder of certifiers below, an attack above, at several radii.

    python experiments/train.py --config=configs/digits_ibp.py --workdir=runs/digits_ibp
    python experiments/certify.py --config=configs/digits_ibp.py --workdir=runs/digits_ibp

IBP, CROWN-IBP, CROWN and alpha-CROWN in turn, each on what is still undecided; --sound proves it for float32 as it is
executed, rounding included. The same command resumes, after kill -9 too. Table, curve.csv, bracket.svg and examples.csv
are in WORKDIR/bracket.
"""

from absl import flags

from robustgen import bracket, log, preemption, workdir, workflow
from robustgen.config import ConfigError, app
from robustgen.measure import radius

_RADII = flags.DEFINE_list("radii", [], "Radii to certify at; default: 1/4, 1/2, 3/4 and 1 of the config's.")
_EXAMPLES = flags.DEFINE_integer("num_examples", 200, "Test examples.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 20, "Examples that are bounded together.", lower_bound=1)
_SOUND = flags.DEFINE_bool("sound", False, "Certificates that hold for float32 as it is executed.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print results only.")


def radii(run: app.Run) -> list[float]:
    """The flag's, or four of the config's. Raises `ConfigError` for what is no radius."""
    if not _RADII.value:
        return [radius(run.config) * part / 4 for part in (1, 2, 3, 4)]
    try:
        found = [float(text) for text in _RADII.value]
    except ValueError as error:
        raise ConfigError("--radii", f"takes numbers: {error}") from error
    if not all(0 <= eps < float("inf") for eps in found):
        raise ConfigError("--radii", f"takes finite radii >= 0; got {','.join(_RADII.value)}")
    return sorted(set(found))


def main(run: app.Run) -> None:
    """Certifies one net."""
    log.hush(_QUIET.value)
    at = radii(run)
    with preemption.deferred_signals(), preemption.interruptible():
        folder = workdir.folder_of(run)
        plan = workdir.reopen_run(run, folder)
        net = workflow.load_net(plan, folder)
        out = folder / ("bracket_sound" if _SOUND.value else "bracket")
        found = bracket.measure_bracket(
            plan, net, out, radii=at, num_examples=_EXAMPLES.value, batch_size=_BATCH.value,
            ladder=bracket.SOUND if _SOUND.value else bracket.LADDER,
        )  # fmt: skip
        bracket.publish(found, out, sound=_SOUND.value)


if __name__ == "__main__":
    app.run(main, expected=(*workdir.ERRORS, bracket.JournalError))
