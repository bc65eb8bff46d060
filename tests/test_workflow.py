"""From a config to a trained net: resuming, the folder's identity, the sealed test split, populations, failures."""

import itertools
import json

import fiddle as fdl
import jax
import numpy as np
import pytest

from robustgen import checkpoint, config, data, log, parallel, preemption, study, train, workdir, workflow
from robustgen.config import app
from robustgen.data import digits
from robustgen.schedules import piecewise

TINY = [
    "training.num_epochs=2", "training.log_every=4", "training.validate_every=1", "training.ema_decay=0.9",
    "model.hidden=(16,)", "loss.attack.num_steps=2", "training.validate_with.num_steps=2",
    "evaluation.num_examples=20", "evaluation.curve=(0.0, 0.1)", "evaluation.attacks.PGD-50x3.num_steps=2",
]  # fmt: skip
STEPS = 16
BACKEND = parallel.jit(num_devices=1)


def command(*changes: str) -> app.Run:
    cfg, base = app.resolve("configs/digits_trades.py", [*TINY, *changes])
    return app.Run(cfg, base, "configs/digits_trades.py", None, ("train.py",))


@pytest.fixture(scope="module", autouse=True)
def quiet():
    log.hush()
    yield
    log.hush(False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(plan, folder, net) of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    plan = workdir.open_run(command(), folder)
    return plan, folder, workflow.train_one(plan, folder, backend=BACKEND)


def stopped_in_span(number: int) -> parallel.Backend:
    """A back end that dies when the span `number` begins, counted from 1."""
    spans = itertools.count(1)

    def compile(step):
        compiled = BACKEND.compile(step)

        def run(*args):
            if next(spans) == number:
                raise KeyboardInterrupt
            return compiled(*args)

        return run

    return BACKEND._replace(compile=compile)


def same(first, second):
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
    plan, folder, net = trained
    assert plan.num_steps == STEPS
    with pytest.raises(KeyboardInterrupt):
        workflow.train_one(plan, tmp_path, backend=stopped_in_span(4), save_seconds=0.0)
    assert checkpoint.latest(tmp_path / "checkpoints") == 12
    checkpoint.discard_after(tmp_path / "checkpoints", 8)  # as if it had died before saving: metrics are ahead
    with pytest.raises(checkpoint.CheckpointError, match=f"trained 8 of {STEPS} steps; run experiments/train.py"):
        workflow.load_net(plan, tmp_path)
    resumed = workflow.train_one(plan, tmp_path, backend=BACKEND)
    same(resumed, net)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    same(workflow.load_net(plan, tmp_path), net)


def test_finished_run_is_loaded_not_trained(trained):
    plan, folder, net = trained
    same(workflow.train_one(plan, folder, backend=stopped_in_span(1)), net)


def test_unfinished_run_names_its_steps(trained, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match=f"trained 0 of {STEPS} steps") as error:
        workflow.load_net(trained[0], tmp_path / "nothing")
    assert "\n" not in str(error.value) and not (tmp_path / "nothing").exists()


def test_told_to_stop_it_saves_first_and_resumes_the_same(trained, tmp_path, monkeypatch):
    plan, _, net = trained
    monkeypatch.setattr(preemption, "_seen", 15)
    with pytest.raises(preemption.Preempted):
        workflow.train_one(plan, tmp_path, backend=BACKEND)
    assert checkpoint.latest(tmp_path / "checkpoints") == 4
    monkeypatch.setattr(preemption, "_seen", None)
    same(workflow.train_one(plan, tmp_path, backend=BACKEND), net)


def test_signal_between_question_and_answer_waits_for_the_next_span(trained, tmp_path, monkeypatch):
    """Where nothing was saved, nothing may end the run."""
    asked = []

    def requested():
        asked.append(preemption._seen)
        monkeypatch.setattr(preemption, "_seen", 15)
        return asked[-1] is not None

    monkeypatch.setattr(preemption, "requested", requested)
    with pytest.raises(preemption.Preempted):
        workflow.train_one(trained[0], tmp_path, backend=BACKEND)
    assert asked == [None, 15] and checkpoint.latest(tmp_path / "checkpoints") == 8


def refusal(run, folder, members=None) -> str:
    with pytest.raises(config.ConfigError) as error:
        workdir.open_run(run, folder, members)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_of_another_run_is_refused_and_left_as_it_is(trained):
    _, folder, _ = trained
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    run = command()
    assert "another config" in refusal(command("loss.beta=1"), folder)
    assert "another sweep and other seeds" in refusal(run, folder, study.members(run.config, ["loss.beta=1,2"], 1))
    other = json.loads((folder / "identity.json").read_text()) | {"data": "0" * 64}
    (folder / "identity.json").write_text(json.dumps(other))
    assert "other data: 00000000, not" in refusal(run, folder)
    (folder / "identity.json").write_bytes(before[folder / "identity.json"])
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    workdir.open_run(run, folder)


def test_evaluation_may_differ_and_nothing_else_may(trained):
    plan, folder, net = trained
    record = (folder / "run.json").read_bytes()
    other = workdir.reopen_run(command("evaluation.num_examples=7"), folder)
    same(workflow.load_net(other, folder), net)
    for change in ("optimizer.learning_rate=1e-3", "evaluation.threat.eps=0.2"):  # the loss has this threat too
        with pytest.raises(config.ConfigError, match="another config"):
            workdir.reopen_run(command(change), folder)
    assert (folder / "run.json").read_bytes() == record


@pytest.mark.parametrize(
    ("path_and_arg", "workdir_flag", "expected"),
    [
        ("configs/x.py", None, "runs/x_tradeoff"),
        ("configs/x.py:0.25", None, "runs/x_0.25_tradeoff"),
        ("configs/x.py:a/b", None, "runs/x_a_b_tradeoff"),
        ("configs/x.py", "here", "here"),
    ],
)
def test_folder_is_named_after_config_and_argument(path_and_arg, workdir_flag, expected):
    run = app.Run(fdl.Config(dict), fdl.Config(dict), path_and_arg, workdir_flag, ())
    assert workdir.folder_of(run, "_tradeoff").as_posix() == expected


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(command(), tmp_path / "file" / "run")


def digits_without_test(*, num_validation: int) -> data.Source:
    source = digits(num_validation=num_validation)

    def load(split):
        assert split != "test", "the test split was read"
        return source.load(split)

    return source._replace(load=load)


def test_training_never_reads_the_test_split(trained, tmp_path):
    run = command()
    run.config.data = fdl.Config(digits_without_test, num_validation=150)
    plan = workdir.open_run(run, tmp_path)
    same(workflow.train_one(plan, tmp_path, backend=BACKEND), trained[2])


def test_batch_that_devices_cannot_share_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="batch_size: must be a multiple of the 3 devices"):
        workflow.train_one(trained[0], tmp_path, backend=parallel.jit(num_devices=3))


def test_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size: must not exceed the 1147 examples"):
        workflow.plan(command("training.batch_size=1148").config)


def test_population_is_its_members_and_resumes(trained, tmp_path):
    run = command()
    members = study.members(run.config, ["loss.beta=1,6"], 1)
    plan = workdir.open_run(run, tmp_path / "whole", members)
    nets = workflow.train_many(plan, tmp_path / "whole", members, backend=BACKEND)
    for stacked, alone in zip(jax.tree.leaves(nets), jax.tree.leaves(trained[2]), strict=True):
        np.testing.assert_allclose(stacked[1], alone, rtol=0, atol=2e-3)
    assert not np.allclose(*jax.tree.leaves(nets)[1], atol=2e-3)

    with pytest.raises(preemption.Preempted), pytest.MonkeyPatch.context() as patch:
        patch.setattr(preemption, "_seen", 15)
        workflow.train_many(plan, tmp_path / "cut", members, backend=BACKEND)
    same(workflow.train_many(plan, tmp_path / "cut", members, backend=BACKEND), nets)
    cut, whole = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("cut", "whole"))
    assert cut == whole


def test_explosion_names_the_step_and_keeps_the_last_checkpoint(tmp_path):
    run = command("training.num_epochs=3")
    run.config.optimizer.learning_rate = fdl.Config(piecewise, (2e-3, 1e30), boundaries=(0.5,))
    plan = workflow.plan(run.config)
    with pytest.raises(train.TrainingFailed, match="step 13: loss nan.*smaller learning rate") as failure:
        workflow.train_one(plan, tmp_path, backend=BACKEND, save_seconds=0.0)
    assert "\n" not in str(failure.value)
    left = checkpoint.load(tmp_path / "checkpoints")
    assert left.step == 12 and all(np.all(np.isfinite(leaf)) for leaf in left.state.values())
    with pytest.raises(train.TrainingFailed, match="step 13: loss nan"):  # deterministic, so it fails there again
        workflow.train_one(plan, tmp_path, backend=BACKEND)


def test_member_that_diverges_is_a_failure_in_the_study(tmp_path, capsys):
    run = command()
    members = study.members(run.config, ["optimizer.learning_rate=1e30,2e-3"], 1)
    plan = workdir.open_run(run, tmp_path, members)
    nets = workflow.train_many(plan, tmp_path, members, backend=BACKEND)
    assert capsys.readouterr().err.count("member 0 diverged at about step 0") == 1
    spoilt, good = study.study_many(plan, nets, members, "TRADES", tmp_path)
    assert spoilt.columns is None and spoilt.failure == "diverged in the steps up to 4"
    assert len(good.columns["clean"]) == 20 and good.examples is not None and good.curve.robust.shape == (2, 20)
    assert good.history["validation_clean"].shape == (2,) and good.failure == ""
