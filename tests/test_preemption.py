"""Runs that are told to stop, or killed, end as if nothing had happened: bit for bit."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from robustgen import checkpoint, preemption

ROOT = pathlib.Path(__file__).parents[1]
TINY = [sys.executable, str(ROOT / "tests/tiny_run.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


def start(workdir, *arguments):
    command = [*TINY, f"--workdir={workdir}", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def result(workdir):
    loaded = checkpoint.load(workdir / "checkpoints")
    return loaded, (workdir / "metrics.jsonl").read_bytes()


def assert_same(workdir, reference):
    (loaded, metrics), (expected, expected_metrics) = result(workdir), reference
    assert loaded.step == expected.step == 40
    assert loaded.state.keys() == expected.state.keys()
    assert all(loaded.state[name].tobytes() == expected.state[name].tobytes() for name in expected.state)
    assert metrics == expected_metrics


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Puts back what a run that ended by Preempted leaves."""
    monkeypatch.setattr(preemption.atexit, "register", lambda *call: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Result and duration of a run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    code, out, err = finish(start(workdir))
    assert (code, out, err) == (0, "", "")
    assert np.isfinite(result(workdir)[0].state[".params['out']"]).all()
    return result(workdir), time.monotonic() - begin


def test_killed_at_random_times_and_resumed_ends_bit_identical(tmp_path, whole):
    reference, seconds = whole
    draw = random.Random(0)
    for _ in range(3):
        process = start(tmp_path)
        time.sleep(draw.uniform(0.6, 1) * seconds)
        process.kill()
        finish(process)
    assert finish(start(tmp_path))[0] == 0
    assert_same(tmp_path, reference)


def test_sigterm_in_each_phase_of_one_run_saves_and_resumes(tmp_path, whole):
    reached = {}
    for phase in ["import", "set-up", "compile", "train", "save", "evaluation"]:
        process = start(tmp_path, f"--linger={phase}")
        assert process.stdout.readline() == f"{phase}\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code, out, err = finish(process)
        assert code == (-signal.SIGTERM if phase == "import" else preemption.REQUEUE), (phase, err)
        reached[phase] = checkpoint.latest(tmp_path / "checkpoints")
    # compile and train: that chunk; save: the one under way
    assert reached == {"import": None, "set-up": None, "compile": 5, "train": 10, "save": 20, "evaluation": 40}
    assert_same(tmp_path, whole[0])


def test_second_ctrl_c_stops_at_once_and_first_ends_with_130():
    with pytest.raises(SystemExit) as ended, preemption.deferred_signals():
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        preemption.check()
    assert ended.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not preemption.requested()


def test_interruptible_saves_before_it_ends_and_a_signal_during_that_save_waits():
    events = []

    def save():
        os.kill(os.getpid(), signal.SIGTERM)
        events.append("saved")

    with pytest.raises(preemption.Preempted) as ended, preemption.deferred_signals():
        with preemption.interruptible(save):
            os.kill(os.getpid(), signal.SIGTERM)
            events.append("not stopped")
    assert events == ["saved"]
    assert ended.value.code == preemption.REQUEUE


def test_a_signal_noted_earlier_keeps_an_interruptible_phase_from_starting():
    with pytest.raises(preemption.Preempted), preemption.deferred_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with preemption.interruptible():
            raise AssertionError("the phase has started")


def test_signals_leave_as_they_came_after_a_run_and_nothing_happens_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body():
        with preemption.deferred_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before] and signal.getsignal(signal.SIGTERM) is before
