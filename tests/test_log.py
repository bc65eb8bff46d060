"""The metrics file after a kill and a resume is that of a run without; the console says what it should."""

import io
import json
import math
import random

import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import log
from robustgen.log import LogError, MetricsLog, Progress


@pytest.fixture(autouse=True)
def loud():
    yield
    log.hush(False)


def write(path, first, last):
    metrics = MetricsLog(path)
    metrics.truncate_after(first - 1)
    for step in range(first, last + 1):
        metrics.write(step, {"loss": np.float32(1) / np.float32(step)})
        if step % 4 == 0:
            metrics.write(step, {"phase": "valid", "accuracy": [0.5, step / 7]})


@pytest.mark.parametrize("cut", range(0, 260, 13))
def test_file_cut_at_any_byte_and_resumed_equals_the_uninterrupted_one(tmp_path, cut):
    write(tmp_path / "whole", 1, 9)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: max(cut, whole.index(b"\n") + 1)])
    kept = list(log.rows(tmp_path / "cut"))[-1]["step"]
    resume_from = random.Random(cut).randrange(1, kept + 1)  # an earlier checkpoint than the last row
    write(tmp_path / "cut", resume_from, 9)
    assert (tmp_path / "cut").read_bytes() == whole


def test_float32_comes_back_bit_for_bit_and_every_line_is_plain_json(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    metrics = MetricsLog(tmp_path / "m")
    metrics.write(1, {"all": jnp.asarray(bits), "nested": {"half": jnp.bfloat16(1.5), "n": np.int64(3), "ok": True}})
    row = next(log.rows(tmp_path / "m"))
    back, finite = np.float32(row["all"]), np.isfinite(bits)
    assert np.array_equal(back[finite].view(np.uint32), bits[finite].view(np.uint32))
    assert np.array_equal(back, bits, equal_nan=True)
    assert row["nested"] == {"half": 1.5, "n": 3, "ok": True}
    json.loads((tmp_path / "m").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_nan_and_infinities_are_legible_and_come_back(tmp_path):
    metrics = MetricsLog(tmp_path / "m")
    metrics.write(1, {"a": math.nan, "b": np.float32(-np.inf), "c": [1.0, math.inf]})
    assert (tmp_path / "m").read_text() == '{"step": 1, "a": "nan", "b": "-inf", "c": [1.0, "inf"]}\n'
    row = next(log.rows(tmp_path / "m"))
    assert math.isnan(row["a"]) and row["b"] == -math.inf and row["c"] == [1, math.inf]


def test_rows_are_on_the_file_as_soon_as_written_and_a_torn_tail_is_cut_on_opening(tmp_path):
    first = MetricsLog(tmp_path / "m")
    first.write(3, {"loss": 1.0})
    assert (tmp_path / "m").read_bytes() == b'{"step": 3, "loss": 1.0}\n'
    with open(tmp_path / "m", "ab") as stream:
        stream.write(b'{"step": 4, "lo')
    assert [row["step"] for row in log.rows(tmp_path / "m")] == [3]
    second = MetricsLog(tmp_path / "m")
    with pytest.raises(ValueError, match="step 2 comes after step 3"):
        second.write(2, {})
    second.write(4, {})
    assert (tmp_path / "m").read_bytes() == b'{"step": 3, "loss": 1.0}\n{"step": 4}\n'


def test_a_damaged_line_is_told_by_number_and_nothing_is_dropped(tmp_path):
    write(tmp_path / "m", 1, 3)
    damaged = (tmp_path / "m").read_bytes().replace(b'{"step": 2', b'{"step" 2')
    (tmp_path / "m").write_bytes(damaged)
    with pytest.raises(LogError, match="line 2 is damaged"):
        MetricsLog(tmp_path / "m").truncate_after(3)
    assert (tmp_path / "m").read_bytes() == damaged


def test_a_full_disk_is_told_and_leaves_whole_rows(tmp_path, monkeypatch):
    metrics = MetricsLog(tmp_path / "m")
    metrics.write(1, {"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(log, "open", lambda *args, **kwargs: HalfFile(args[0], "a"), raising=False)
        with pytest.raises(OSError, match="only 5 of the"):
            metrics.write(2, {"loss": 1.0})
    metrics.write(2, {"loss": 2.0})
    assert [row["loss"] for row in log.rows(tmp_path / "m")] == [1, 2]


class HalfFile(io.FileIO):
    def write(self, line):
        return super().write(line[:5])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run_progress(stream, clock, total=100, seconds_each=2.0):
    progress = Progress(total, stream=stream, clock=lambda: clock[0])
    for step in range(1, total + 1):
        clock[0] += 60.0 if step == 1 else seconds_each  # the first one compiles
        progress.update(step, {"loss": 1 / step})
        yield stream.getvalue()
    progress.close()


def test_without_a_terminal_there_is_a_line_per_ten_seconds_and_time_left_leaves_compilation_out():
    stream = io.StringIO()
    list(run_progress(stream, [0.0]))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 1/100   1%  loss 1"
    assert lines[1] == "step 6/100   6%  0.5/s  3:08 left  loss 0.1667"
    assert len(lines) == 21 and lines[-1] == "step 100/100 100%  0.5/s  loss 0.01"


def test_on_a_terminal_there_is_one_line_that_other_text_does_not_break(capsys, monkeypatch):
    stream, clock = Terminal(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "60")
    steps = run_progress(stream, clock)
    next(steps)
    log.warn("mind the step")
    for _ in steps:
        pass
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert "\r\x1b[Kwarning: mind the step\n" in text
    shown = text.split("\r\x1b[K")
    assert "[=====               ]  25%" in text and all(len(line.rstrip("\n")) < 60 for line in shown)
    assert shown[-1].startswith("step 100/100 [====================] 100%") and shown[-1].endswith("\n")


def test_progress_of_a_resumed_loop_judges_speed_by_its_own_steps():
    stream, clock = io.StringIO(), [0.0]
    progress = Progress(1000, start=900, stream=stream, clock=lambda: clock[0])
    for step in (910, 920):
        clock[0] += 20
        progress.update(step)
    assert stream.getvalue().splitlines()[-1] == "step 920/1000  92%  0.5/s  2:40 left"


def test_hush_drops_notes_and_progress_and_keeps_results_and_warnings(capsys):
    log.hush()
    log.note("note"), log.say("result"), log.warn("careful")
    list(run_progress(io.StringIO(), [0.0], total=3))
    assert capsys.readouterr() == ("result\n", "warning: careful\n")


def test_clock_time():
    assert [log.clock_time(s) for s in (0.4, 65, 3600 + 61)] == ["0:00", "1:05", "1:01:01"]


def test_interject_is_one_write_that_cannot_meet_a_print_half_way(capfd):
    log.interject("SIGTERM")
    assert capfd.readouterr().err == "\nSIGTERM\n"
