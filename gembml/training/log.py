"""Metrics as JSON lines and as TensorBoard events."""

import json
import pathlib

from tensorboardX import SummaryWriter


class MetricsLog:
    """Writes ``metrics.jsonl`` and TensorBoard events below a run's directory."""

    def __init__(self, directory: pathlib.Path, resumed_step: int) -> None:
        """Open the log; what a killed run had written beyond its last checkpoint is dropped."""
        self._path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(self._path) if row["step"] <= resumed_step]
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.rename(self._path)
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one line."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.jsonl``, without a last line that a killed process left half."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def lost_tasks(rows: list[dict[str, float]]) -> float:
    """Of all tasks up to the last row, the share whose meta-gradient counted as zero."""
    step = lost = 0.0
    for row in rows:
        lost += row.get("lost_tasks", 0.0) * (row["step"] - step)
        step = row["step"]
    return lost / step if step else 0.0
