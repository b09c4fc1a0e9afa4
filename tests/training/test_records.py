"""What a run leaves behind while it trains: lines that survive a kill, events that can be read, progress."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conseq.training.records import EpochLines, MetricsFile, ProgressBar, TensorBoard, Watchers, read_metrics


def record(epoch: int, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "terms": {"next_item": 4.5, "contrast": 0.25}, "seconds": 1.23, "best_epoch": 1, **more}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Gives the (epoch, value) pairs of every scalar, as TensorBoard itself reads them."""
    # Imported here, because it is slow to import.
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # noqa: PLC0415
        EventAccumulator,
    )

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_metrics_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    written = [record(1, metrics={"NDCG@20": 0.1}), record(2)]
    for one in written:
        file.epoch_done(one)
    assert read_metrics(tmp_path / "metrics.jsonl") == written
    assert read_metrics(tmp_path / "nothing.jsonl") == []


def test_a_rewind_drops_later_epochs_and_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for epoch in (1, 2, 3):
        file.epoch_done(record(epoch))
    with path.open("a") as cut:
        cut.write(json.dumps(record(4))[:20])
    assert [one["epoch"] for one in read_metrics(path)] == [1, 2, 3]
    file.rewind(2)
    file.epoch_done(record(3, again=True))
    assert read_metrics(path) == [record(1), record(2), record(3, again=True)]


def test_a_rewind_to_the_beginning_leaves_no_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.epoch_done(record(1))
    file.rewind(0)
    assert read_metrics(file.path) == []


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(1)) + '\n{"epoch": 2, "te\n' + json.dumps(record(3)) + "\n")
    with pytest.raises(ValueError, match=r"""metrics\.jsonl, line 2: not a JSON object: '{"epoch": 2, "te'"""):
        read_metrics(path)


def test_an_epochs_line_names_the_terms_the_validation_metric_the_best_epoch_and_the_seconds() -> None:
    stream = io.StringIO()
    lines = EpochLines("NDCG@20", 30, stream)
    lines.epoch_done(record(1, metrics={"NDCG@20": 0.0431, "HR@5": 0.1}))
    lines.epoch_done(record(2))  # an epoch without validation
    lines.rewind(1)
    assert stream.getvalue().splitlines() == [
        "epoch 1/30  next_item 4.5000  contrast 0.2500  validation NDCG@20 0.0431  best epoch 1  1.2 s",
        "epoch 2/30  next_item 4.5000  contrast 0.2500  1.2 s",
        "resuming after epoch 1",
    ]


def test_lines_go_to_standard_error_where_no_stream_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    EpochLines("NDCG@20", 30).epoch_done(record(1))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("epoch 1/30  ")


def test_the_bar_shows_batches_and_time_left_and_nothing_on_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then draws as on a terminal
    monkeypatch.setenv("COLUMNS", "150")
    bar = ProgressBar("NDCG@20", 2)
    for epoch in (1, 2):
        for batch in (1, 2, 3):
            bar.batch_done(epoch, batch, 3)
        bar.epoch_done(record(epoch, metrics={"NDCG@20": 0.0431}))
    bar.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert "epoch 2/2  next_item 4.5000  contrast 0.2500  validation NDCG@20 0.0431" in said.err
    assert "3/3" in said.err
    assert "of the epoch, at most 0:00:00 for all" in said.err


def test_a_bar_that_never_began_can_be_closed(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar("NDCG@20", 2).close()
    assert capsys.readouterr().out == ""


def test_tensorboard_reads_the_terms_and_metrics_of_every_epoch(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.epoch_done(record(1, metrics={"NDCG@20": 0.5}))
    board.epoch_done(record(2))
    board.writer.close()
    assert scalars(tmp_path) == {
        "terms/next_item": [(1, 4.5), (2, 4.5)],
        "terms/contrast": [(1, 0.25), (2, 0.25)],
        "metrics/NDCG@20": [(1, 0.5)],
    }


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    killed = TensorBoard(tmp_path)
    for epoch in (1, 2, 3):
        killed.epoch_done(record(epoch))
    killed.writer.close()
    resumed = TensorBoard(tmp_path)
    resumed.rewind(1)
    resumed.epoch_done({**record(2), "terms": {"next_item": 2.0}})
    resumed.writer.close()
    assert scalars(tmp_path)["terms/next_item"] == [(1, 4.5), (2, 2.0)]


def test_without_the_package_tensorboard_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=r"need the extra: pip install 'conseq\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_several_watchers_are_each_told_everything(tmp_path: Path) -> None:
    stream = io.StringIO()
    file = MetricsFile(tmp_path / "metrics.jsonl")
    both = Watchers([file, EpochLines("NDCG@20", 2, stream)])
    both.batch_done(1, 1, 1)
    both.epoch_done(record(1))
    both.epoch_done(record(2))
    both.rewind(1)
    assert read_metrics(file.path) == [record(1)]
    assert len(stream.getvalue().splitlines()) == 3
