"""``train plot``: what is drawn, from which runs, into which file. Figures are read back from matplotlib's axes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.errors import InputError
from ibisagent.train.watch import curves
from ibisagent.train.watch.curves import automatic_width, draw_curves, time_split
from ibisagent.train.watch.history import read_history
from ibisagent.train.watch.panels import chosen_sections, present_sections
from ibisagent.train.watch.plot import main


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Figures, in place of their files."""
    figures: list[Any] = []

    def keep(figure: Any, kind: str = "png") -> bytes:
        figures.append(figure)
        return b"drawn"

    monkeypatch.setattr(curves, "figure_bytes", keep)
    yield figures


def titles(figure: Any) -> list[str]:
    return [axis.get_title("left") for axis in figure.axes]


def axis_of(figure: Any, title: str) -> Any:
    return next(axis for axis in figure.axes if axis.get_title("left") == title)


def test_a_run_of_rl(rl_run, drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = rl_run("a", 60)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "curves.png")
    (figure,) = drawn
    found = titles(figure)
    wanted = (
        *("Reward", "Gain", "Step cost", "IoU (present targets)", "Steps", "Valid actions", "Refusals", "Entropy"),
        *("Tokens written", "Images in a batch", "Loss", "Learning rate", "Gradient norm"),
    )
    for title in wanted:
        assert title in found, title
    assert "Token accuracy" not in found and "KL to the start" not in found  # not logged; nil throughout
    faint, bold = axis_of(figure, "Reward").lines
    history = read_history(folder)
    steps, values = history.series("reward")
    assert np.array_equal(faint.get_xdata(), steps) and np.array_equal(faint.get_ydata(), values)
    assert faint.get_alpha() < 0.5 and bold.get_linewidth() > 2 * faint.get_linewidth()
    assert np.std(bold.get_ydata()) < np.std(values)
    legend = axis_of(figure, "Refusals").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["right", "false"]


def test_time_is_split_whole(rl_run, drawn: list[Any]) -> None:
    history = read_history(rl_run("a", 10))
    split = time_split(history)
    assert split is not None
    assert np.allclose(split["rest"], 1.0)
    assert np.allclose(sum(split[name] for name in ("policy", "segmenter", "optimizer", "rest")), 17.0)
    del history.values["seconds/policy"][4]  # an update that learnt from the rest of a batch
    assert time_split(history)["policy"][3] == 0.0  # type: ignore[index]
    draw_curves([history], ["a"], present_sections([history]), 1)
    top = max(path.vertices[:, 1].max() for c in axis_of(drawn[0], "Seconds").collections for path in c.get_paths())
    assert top == pytest.approx(17.0)


def test_seeds_are_laid_over_each_other(rl_run, sft_run: Path, drawn: list[Any], tmp_path: Path) -> None:
    runs = [str(rl_run(f"seed{i}/rl", 40, shift=i / 10)) for i in range(2)]
    assert main([*runs, str(sft_run), "--out", str(tmp_path / "x.png"), "--smooth", "5"]) == 0
    (figure,) = drawn
    (legend,) = [g for g in figure.legends if len(g.get_texts()) == 3]
    assert [text.get_text() for text in legend.get_texts()] == ["seed0/rl", "seed1/rl", f"{tmp_path.name}/sft"]
    lines = axis_of(figure, "Reward").lines
    assert len(lines) == 4 and len({line.get_color() for line in lines}) == 2
    assert len({line.get_color() for line in axis_of(figure, "Loss").lines}) == 3
    assert {"Token accuracy", "Tokens learnt from"} <= set(titles(figure))


def test_titles_and_labels_do_not_overlap(rl_run, sft_run: Path, drawn: list[Any], tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    runs = [str(rl_run(f"a run with a long name of seed {i}", 40, shift=i / 10)) for i in range(5)]
    main([*runs, str(sft_run), "--out", str(tmp_path / "x.png")])
    (figure,) = drawn
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    width, height = canvas.get_width_height()
    for number, box in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        for other in boxes[:number]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert wide <= 1 or high <= 1, (box, other)


def test_chosen_metrics(rl_run, drawn: list[Any], tmp_path: Path) -> None:
    folder = str(rl_run("a", 12))
    out = str(tmp_path / "x.svg")
    assert main([folder, "--metrics", "reward", "refusal/*", "tokens/own", "--out", out]) == 0
    assert titles(drawn[0]) == ["Reward", "refusal/false", "refusal/right", "Tokens written"]
    with pytest.raises(InputError, match="no run logged 'acuracy'; there are clip_ratio/region_mean, entropy"):
        main([folder, "--metrics", "acuracy", "--out", out])
    (section,) = chosen_sections([read_history(folder)], ["reward", "reward"])
    assert len(section.panels) == 1


def test_a_short_run_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    values = {"reward": 0.5, "iou": 0.0, "validity": 1.0}
    times = {"seconds/policy": 1.0, "seconds/optimizer": 1.0, "seconds/update": 3.0}
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 7, **values, **times}) + "\n")
    history = read_history(tmp_path)
    assert automatic_width([history]) == 1
    main([str(tmp_path)])
    axis = axis_of(drawn[0], "Reward")
    assert axis.lines[0].get_marker() == "o"
    assert all(float(tick).is_integer() for tick in axis.get_xticks())
    assert axis_of(drawn[0], "Valid actions").get_ylim()[0] < 1.0 < axis_of(drawn[0], "Valid actions").get_ylim()[1]


def test_one_of_a_pair_is_named(tmp_path: Path, drawn: list[Any]) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5, "refusal/false": 0.1}\n')
    main([str(tmp_path)])
    assert titles(drawn[0]) == ["Refusals: false", "Loss"]


def test_files_are_what_they_say_and_the_same_again(rl_run, tmp_path: Path) -> None:
    folder = str(rl_run("a $x_1$ <b>", 30))
    for name in ("new/a.png", "b.PNG", "c.svg", "d.svg"):
        assert main([folder, "--metrics", "reward", "iou", "--out", str(tmp_path / name)]) == 0
    data = (tmp_path / "new" / "a.png").read_bytes()
    assert data == (tmp_path / "b.PNG").read_bytes()
    picture = PIL.Image.open(io.BytesIO(data))
    assert picture.format == "PNG" and picture.width > 600
    assert (tmp_path / "c.svg").read_bytes() == (tmp_path / "d.svg").read_bytes()
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.gif"], r"\.png or \.svg"),
        (["--out", "x"], r"\.png or \.svg"),
        (["--labels", "a", "b"], "2 labels do not fit 1 run"),
        (["--smooth", "0"], "from 1 up"),
        (["--smoth", "3"], "--smoth"),
        (["--out", "/proc/no/such.png"], "cannot write"),
    ],
)
def test_errors_are_a_line(rl_run, words: list[str], said: str, drawn: list[Any]) -> None:
    with pytest.raises(InputError, match=said) as caught:
        main([str(rl_run("a", 3)), *words])
    assert "\n" not in str(caught.value)


def test_it_loads_no_torch() -> None:
    code = (
        "import sys; from ibisagent.train.watch import plot, curves, history, panels;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
