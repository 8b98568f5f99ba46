"""The metrics log over interruptions."""

import json

from gembml.training import read_metrics
from gembml.training.log import MetricsLog


def test_rows_read_back(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(10, {"mse": 1.5})
    log.write(20, {"mse": 0.5})
    log.close()
    rows = [{"step": 10, "mse": 1.5}, {"step": 20, "mse": 0.5}]
    assert read_metrics(tmp_path / "metrics.jsonl") == rows


def test_rows_beyond_the_resumed_step_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.write(step, {"mse": float(step)})
    log.close()
    log = MetricsLog(tmp_path, 20)
    log.write(30, {"mse": -1.0})
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["mse"]) for row in rows] == [(10, 10.0), (20, 20.0), (30, -1.0)]


def test_a_half_written_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 10}) + '\n{"step": 2')
    assert read_metrics(path) == [{"step": 10}]


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_events_are_written(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(10, {"mse": 1.5})
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"mse" in events.read_bytes()
