"""What is recorded of those who play."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibisagent.errors import InputError
from ibisagent.evaluate import player
from ibisagent.evaluate.player import player_facts, usual_workers
from ibisagent.evaluate.store import RunFolder
from ibisagent.policies.api import ApiPolicy
from ibisagent.segmenters.rules import RulesSegmenter


def test_another_server_is_another_policy_and_its_key_is_nobodys(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    one, other = (
        player_facts(ApiPolicy("m", base_url=f"http://user:secret@{host}/v1", api_key="hidden"), RulesSegmenter())
        for host in ("127.0.0.1:8000", "127.0.0.1:9000")
    )
    assert one["policy_host"] == "127.0.0.1:8000" and "secret" not in str(one) and "hidden" not in str(one)
    with RunFolder.open(tmp_path, {**one, "num_rows": 2}):
        pass
    with pytest.raises(InputError, match=r"policy_host 127\.0\.0\.1:8000, not 127.0.0.1:9000"):
        RunFolder.open(tmp_path, {**other, "num_rows": 2})
    with RunFolder.open(tmp_path, {**one, "num_rows": 2}):
        pass


def test_small_policies_on_the_cpu_get_a_worker_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "num_cores", lambda: 12)
    assert [usual_workers("nano", "cpu", rows) for rows in (0, 7, 16, 40, 999)] == [1, 1, 2, 5, 8]
    assert usual_workers("vlm:x", "cpu", 999) == usual_workers("nano:x", "cuda", 999) == 1
