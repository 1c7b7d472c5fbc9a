"""A build whose thoughts come from a chat server: answers are kept, counted, and paid for once."""

from __future__ import annotations

import json
from pathlib import Path

from ibisagent.engine.builder.build import synthesize
from ibisagent.engine.builder.config import load_config
from ibisagent.engine.corpus.reader import Corpus


def test_a_chat_teacher_writes_a_corpus_and_a_rerun_is_free(chat_server, make_completion, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    chat_server.answer = lambda _, n: (200, make_completion(f"I look at the picture again, for the time number {n}."))
    config = load_config(
        ("phantoms:2?size=96",),
        segmenter="rules",
        teacher="chat:toy",
        teacher_options={"base_url": chat_server.url},
        filters={"min_final_dice": 0.5},
    )
    result = synthesize(config, tmp_path / "one", num_workers=1)
    rows = list(Corpus(tmp_path / "one").rows("sft"))
    assert rows and all(row["provenance"]["teacher"] == "chat:toy" for row in rows)
    assert result.spent is not None and result.spent["requests"] == len(chat_server.requests) > 0
    assert json.loads((tmp_path / "one" / "run.json").read_text())["teacher"] == result.spent
    reasoning = json.loads((tmp_path / "one" / "report.json").read_text())["reasoning"]
    assert reasoning["teacher: replies"] > 0 and 0 <= reasoning["rejection_rate"] <= 1
    # Begun anew with the answers at hand: the same corpus, and not one more request.
    asked = len(chat_server.requests)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "work").mkdir()
    (tmp_path / "one" / "teacher-cache").rename(tmp_path / "two" / "teacher-cache")
    synthesize(config, tmp_path / "two", num_workers=1)
    assert len(chat_server.requests) == asked
    for path in (tmp_path / "one" / "data").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
