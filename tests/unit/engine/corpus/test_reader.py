"""A corpus read back: the same pixels, words and masks as the live run had."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import sample_corpus
from ibisagent.actions import DIALECTS, Click, ClickAction, Turn
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.records import dialect_of
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import InputError
from ibisagent.messages import build_messages
from ibisagent.replay import recorded_image, replay, with_image
from ibisagent.scoring import score_episode
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.web.episode_page import render_episode_page


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[sample_corpus.Run]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, sample_corpus.write_sample_corpus(folder)


@pytest.fixture
def corpus(built: tuple[Path, list[sample_corpus.Run]]) -> Corpus:
    return Corpus(built[0])


def test_tables_splits_and_counts(corpus: Corpus) -> None:
    assert corpus.tables == ("images", "sft", "rl", "test", "vqa")
    assert corpus.splits("images") == ("test", "train")
    assert corpus.splits("sft") == ("train",)
    assert {t: corpus.count(t) for t in corpus.tables} == {"images": 3, "sft": 4, "rl": 3, "test": 2, "vqa": 2}
    assert corpus.count("images", "test") == 1
    ids = [row["trajectory_id"] for row in corpus.rows("sft", "train")]
    assert ids == ["toy-0-liver", "toy-1-lesion", "toy-2-cyst", "toy-3-spleen"]
    assert next(iter(corpus.rows("sft", columns=["target"]))) == {"target": "liver"}


def test_messages_are_those_of_the_live_run(corpus: Corpus, built: tuple[Path, list[sample_corpus.Run]]) -> None:
    num_images = 0
    for row, run in zip(corpus.rows("sft"), built[1], strict=True):
        live = build_messages(run.view, run.system_prompt)[:-1]
        read = corpus.messages(row)
        assert [m["role"] for m in read] == [m["role"] for m in live]
        for mine, theirs in zip(read, live, strict=True):
            assert len(mine["content"]) == len(theirs["content"])
            for a, b in zip(mine["content"], theirs["content"], strict=True):
                assert a.keys() == b.keys()
                if a["type"] == "text":
                    assert a == b
                else:
                    num_images += 1
                    assert a["image"].dtype == np.uint8
                    np.testing.assert_array_equal(a["image"], b["image"])
    assert num_images == 10


def test_messages_of_a_prompt_show_the_given_mask(corpus: Corpus) -> None:
    plain, refine, _ = corpus.rows("rl")
    np.testing.assert_array_equal(corpus.messages(plain)[1]["content"][1]["image"], sample_corpus.ct_image().pixels)
    shown = corpus.messages(refine)[1]["content"][1]["image"]
    changed = (shown != sample_corpus.skin_image().pixels).any(axis=2)
    np.testing.assert_array_equal(changed, sample_corpus.disc(30, 18, 7))


def test_pictures_come_back_bit_by_bit(corpus: Corpus) -> None:
    for image in (sample_corpus.ct_image(), sample_corpus.skin_image()):
        pixels = corpus.image(image.sha256)
        np.testing.assert_array_equal(pixels, image.pixels)
        assert pixels.shape == (40, 56, 3) and not pixels.flags.writeable
        assert corpus.image(image.sha256) is pixels  # kept
        row = corpus.image_row(image.sha256)
        assert (row["width"], row["height"], "image" in row) == (56, 40, False)
    assert corpus.image_row(sample_corpus.ct_image().sha256)["spacing_mm"] == [0.7, 0.7]


def test_only_so_many_pictures_are_kept(tmp_path: Path) -> None:
    images = []
    for level in range(40):
        pixels = np.full((4, 4, 3), level, np.uint8)
        images.append(sample_corpus.Image(pixels, sample_corpus.Geometry.plane_2d(), source=f"{level}.png"))
    for shard in range(2):
        rows = [sample_corpus.image_row(image) for image in images[shard * 20 : shard * 20 + 20]]
        write_table(shard_path(tmp_path, "images", "train", shard, 2), "images", rows)
    corpus = Corpus(tmp_path)
    assert all(corpus.image(image.sha256)[0, 0, 0] == level for level, image in enumerate(images))
    assert len(corpus._images) == 32 and images[0].sha256 not in corpus._images
    assert corpus.image(images[0].sha256)[0, 0, 0] == 0


def test_targets(corpus: Corpus) -> None:
    liver, _, _, absent = corpus.rows("sft")
    target = corpus.target(liver)
    assert target is not None and target.dtype == np.bool_
    np.testing.assert_array_equal(target, sample_corpus.LIVER)
    assert corpus.target(absent) is None


def test_episodes_replay_render_and_score(corpus: Corpus, built: tuple[Path, list[sample_corpus.Run]]) -> None:
    for row, run in zip(corpus.rows("sft"), built[1], strict=True):
        episode, live, case = corpus.episode(row), run.view.episode, corpus.case(row)
        assert episode.outcome == live.outcome and episode.answer == live.answer
        assert (episode.final_mask, episode.final_step) == (live.final_mask, live.final_step)
        assert episode.initial_mask == live.initial_mask and episode.num_steps == live.num_steps
        for mine, theirs in zip(episode.steps, live.steps, strict=True):
            without = {"seconds", "messages", "world_mm"}
            assert mine.model_dump(exclude=without) == theirs.model_dump(exclude=without)
        np.testing.assert_array_equal(case.image.pixels, run.view.case.image.pixels)
        report = replay(episode, case.image, RulesSegmenter())
        assert report.matches and report.same_image and report.same_segmenter, report.detail
        page = render_episode_page(episode, case.image, score_episode(episode, corpus.target(row)))
        assert row["instruction"] in page and "toy-" in page
        kept = recorded_image(Episode.model_validate_json(with_image(episode, case.image).model_dump_json()))
        assert kept is not None and kept.sha256 == row["image_id"]


def test_an_episode_keeps_what_was_asked_by_hash(corpus: Corpus) -> None:
    row = list(corpus.rows("sft"))[1]
    first, second = corpus.episode(row).steps[:2]
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert [m["role"] for m in second.messages] == ["user"]
    assert first.messages[1]["content"][1] == {"type": "image", "sha256": row["image_id"]}


def test_a_reply_that_is_no_action_stays_one(corpus: Corpus) -> None:
    row = next(corpus.rows("sft"))
    row["messages"][2]["content"][0]["text"] = "I cannot do that."
    step = corpus.episode(row).steps[0]
    assert step.action is None and step.invalid is not None and step.invalid.code


def test_dialects_are_told_apart() -> None:
    stop = "<think>It fits.</think><action>Terminate</action>"
    click = "<think>a</think><action>Positive Point (0.5000, 0.2500)</action>"
    both = ClickAction(clicks=tuple(Click(x=x, y=0.25, positive=True) for x in (0.5, 0.75)))
    many = DIALECTS["json"].format(Turn(thought="a", action=both))
    assert dialect_of([click, stop + "<answer>Found: it</answer>"]).name == "plain"
    assert dialect_of([click, stop + "<answer>the liver</answer>"]).name == "ibis-paper"
    assert dialect_of([]).name == "plain"
    assert dialect_of([many]).name == "json"


def test_a_run_that_ended_early_has_its_last_mask(corpus: Corpus) -> None:
    row = next(corpus.rows("sft"))
    row["messages"], row["steps"] = row["messages"][:3], row["steps"][:1]
    row["outcome"] = "out_of_steps"
    episode = corpus.episode(row)
    assert episode.outcome is Outcome.OUT_OF_STEPS and episode.final_step == 0
    assert episode.final_mask == episode.steps[0].mask is not None


# -- what is wrong is one line ---------------------------------------------------------------


def fails(message: str, act: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        act()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_corpus(tmp_path: Path) -> None:
    fails("no such folder", lambda: Corpus(tmp_path / "nowhere"))
    fails("no corpus in it", lambda: Corpus(tmp_path))
    (tmp_path / "data" / "sft").mkdir(parents=True)
    (tmp_path / "data" / "sft" / ".train-00000-of-00001.parquet.part").write_bytes(b"half")
    fails("no corpus in it", lambda: Corpus(tmp_path))


def test_tables_and_splits_that_are_not_there(corpus: Corpus, tmp_path: Path) -> None:
    fails("no table 'sff'; there is images, sft", lambda: list(corpus.rows("sff")))
    fails("no split 'val' of 'sft'; there is train", lambda: list(corpus.rows("sft", "val")))
    write_table(shard_path(tmp_path, "sft", "train", 0, 9), "sft", [sample_corpus.sft_runs()[0].row])
    partial = Corpus(tmp_path)
    assert partial.tables == ("sft",)
    row = next(partial.rows("sft"))
    fails("no table 'images'", lambda: partial.messages(row))


def test_an_image_that_is_not_written_yet(built: tuple[Path, list[sample_corpus.Run]], tmp_path: Path) -> None:
    shutil.copytree(built[0], tmp_path / "c")
    for path in (tmp_path / "c" / "data" / "images").glob("train-*"):
        path.unlink()
    corpus = Corpus(tmp_path / "c")
    row = next(corpus.rows("sft"))
    fails("is not in it; finish the corpus", lambda: corpus.messages(row))


def test_damaged_shards_are_named(built: tuple[Path, list[sample_corpus.Run]], tmp_path: Path) -> None:
    shutil.copytree(built[0], tmp_path / "c")
    corpus = Corpus(tmp_path / "c")
    (sft,) = [path for path in corpus.shards("sft") if "00001-of" in path.name]
    whole = sft.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1"):
        sft.write_bytes(damaged)
        fails("train-00001-of-00002.parquet: ", lambda: list(corpus.rows("sft")))
        fails("train-00001-of-00002.parquet: ", lambda: corpus.count("sft"))
    (vqa,) = corpus.shards("vqa")
    sft.write_bytes(vqa.read_bytes())
    fails("it lacks the column 'trajectory_id'", lambda: list(corpus.rows("sft")))


def test_a_picture_that_was_exchanged_is_found(tmp_path: Path) -> None:
    row = sample_corpus.image_row(sample_corpus.ct_image())
    other = sample_corpus.image_row(sample_corpus.skin_image())
    write_table(shard_path(tmp_path, "images", "train", 0, 1), "images", [{**row, "image": other["image"]}])
    fails("not the one that its id names", lambda: Corpus(tmp_path).image(row["image_id"]))
    broken = {"bytes": b"\x89PNG\r\n\x1a\n", "path": None}
    write_table(shard_path(tmp_path, "images", "train", 0, 1), "images", [{**row, "image": broken}])
    fails("train-00000-of-00001.parquet: damaged", lambda: Corpus(tmp_path).image(row["image_id"]))


def test_numbers_and_masks_that_do_not_fit(corpus: Corpus) -> None:
    row = next(corpus.rows("sft"))
    fails("no mask number 7", lambda: corpus.mask(row, 7))
    fails("damaged mask", lambda: corpus.target({**row, "target_mask": {"size": [40, 56], "counts": "é"}}))
    fails("a damaged mask", lambda: corpus.target({**row, "target_mask": {"size": [0, 56], "counts": "0"}}))
    small = [{"size": [2, 2], "counts": "4"}]
    fails("not of the image's size", lambda: corpus.messages({**row, "masks": small}))
    fails("not of the image's size", lambda: corpus.case({**row, "masks": small, "initial_mask": 0}))
    fails("1 steps do not belong together", lambda: corpus.episode({**row, "steps": row["steps"][:1]}))
