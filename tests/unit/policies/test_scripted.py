from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibisagent.environment import SegmentationEnv
from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.protocol import Policy
from ibisagent.policies.scripted import ScriptedPolicy, make, read_script
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case

REPLIES = ["<think>a\nb</think><action>Undo</action>", 'say "that"', "<think></think><action>Discard</action>"]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(REPLIES),
        json.dumps([{"text": r} for r in REPLIES], indent=2),
        "\n".join(json.dumps(r) for r in REPLIES) + "\n",
        "\n".join(json.dumps({"text": r, "note": 1}) for r in REPLIES),
        "\n---\n".join(REPLIES),
        "---\n" + "\n --- \n".join(REPLIES) + "\n---\n",
        "\ufeff" + json.dumps(REPLIES),
        json.dumps({"replies": REPLIES, "note": 1}),
    ],
)
def test_every_form(tmp_path: Path, content: str) -> None:
    path = tmp_path / "replies.txt"
    path.write_text(content, encoding="utf-8")
    assert read_script(path) == REPLIES


def test_plain_replies_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(f"{REPLIES[0]}\n\n  {REPLIES[2]}\n{REPLIES[0]}")
    assert read_script(path) == [REPLIES[0], REPLIES[2], REPLIES[0]]


def test_one_plain_reply(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(REPLIES[0])
    assert read_script(path) == [REPLIES[0]]


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"---\n---", b"[]", b"[1, 2]", b'{"txt": "a"}', b"[[]]", b"\xff\xfe\xfd"]
)
def test_bad_scripts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_script(path)
    assert "\n" not in str(caught.value)


def test_missing_script(tmp_path: Path) -> None:
    for arg in (None, str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(InputError):
            make(arg)


def test_the_episode_says_which_reply_is_next(disc_case: Case, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(REPLIES))
    policy = make(str(path), device="cpu")
    assert isinstance(policy, Policy) and policy.name == "scripted:s.json"
    env = SegmentationEnv(RulesSegmenter())
    view = env.reset(disc_case)
    for reply in REPLIES:
        assert [r.text for r in policy.act([view, view], 0)] == [reply, reply]
        view = env.step(reply)
    with pytest.raises(PolicyError, match="3 replies"):
        policy.act([view], 0)


def test_dialect_by_name() -> None:
    assert ScriptedPolicy([], "json").dialect.name == "json"
    with pytest.raises(InputError, match="no dialect"):
        ScriptedPolicy([], "latin")
