from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.engine.corpus.decisions import MAX_NOTE_CHARS, Decision, Decisions
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.errors import InputError
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.types import Image
from ibisagent.web.corpus_page import render_corpus_page, write_corpus_page
from ibisagent.web.corpus_server import ReviewServer
from ibisagent.web.corpus_view import MAX_SIDE, build_view, read_action
from sample_corpus import ct_image, image_row, sft_runs, write_sample_corpus
from sample_episodes import HOSTILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpus")
    write_sample_corpus(place)
    return place


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus(folder)


def decided(name: str, decision: str, note: str = "") -> Decision:
    return Decision.model_validate({"trajectory_id": name, "decision": decision, "note": note})


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found.group(1))


# -- what is shown ---------------------------------------------------------------------------


def test_a_frame_is_what_the_agent_saw_when_it_acted(corpus: Corpus) -> None:
    """Every frame's mask is the one in the picture of the row's own messages before that reply."""
    view = build_view(corpus, "toy")
    rows = list(corpus.rows("sft"))
    assert [row["id"] for row in view.rows] == [row["trajectory_id"] for row in rows]
    for shown, row in zip(view.rows, rows, strict=True):
        before = [
            next(part["mask"] for part in reversed(message["content"]) if part["type"] == "image")
            for message in row["messages"]
            if message["role"] == "user"
        ]
        assert [frame["mask"] for frame in shown["frames"]] == before
        assert [frame["thought"] for frame in shown["frames"]] == [step["thought"] for step in row["steps"]]
        assert [frame["learn"] for frame in shown["frames"]] == [step["intent"] != "wrong" for step in row["steps"]]
        for counts, mask in zip(shown["masks"], row["masks"], strict=False):
            assert counts == mask["counts"]


def test_reference_and_facts(corpus: Corpus) -> None:
    by_id = {row["id"]: row for row in build_view(corpus, "toy").rows}
    for row in corpus.rows("sft"):
        shown = by_id[row["trajectory_id"]]
        if row["target_mask"] is None:
            assert shown["reference"] == -1 and shown["outcome"] == "absent"
        else:
            assert shown["masks"][shown["reference"]] == row["target_mask"]["counts"]
        assert shown["iou"] == pytest.approx(row["final_iou"], abs=1e-4) and shown["target"] == row["target"]
        assert ["source", "toy"] in shown["facts"] and ["licence", "CC0-1.0"] in shown["facts"]
    marks = by_id["toy-1-lesion"]["frames"][0]
    assert marks["marks"] == [[pytest.approx(2.5 / 56, abs=1e-4), pytest.approx(2.5 / 40, abs=1e-4), 1]]
    assert marks["action"].startswith("Positive Point (0.0446, ") and not marks["learn"]
    assert by_id["toy-2-cyst"]["frames"][0]["mask"] == by_id["toy-2-cyst"]["given"] >= 0


def test_images_stand_once_and_look_right(corpus: Corpus) -> None:
    view = build_view(corpus, "toy")
    assert len(view.images) == 2 and {row["image"] for row in view.rows} == {0, 1}
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(view.images[0]["src"].split(",", 1)[1])))
    shown = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(shown - ct_image().pixels).mean() < 4
    assert view.images[0]["facts"] == ["56 × 40 px", "0.7 mm/px"] and view.images[1]["facts"] == ["56 × 40 px"]


def test_a_large_image_and_its_masks_shrink_together(tmp_path: Path) -> None:
    pixels = np.zeros((1000, 600, 3), np.uint8)
    pixels[200:500, 300:500] = 255
    image = Image(pixels, ct_image().geometry, "CT", source="big.png")
    big, dot = pixels[..., 0] > 0, np.zeros((1000, 600), bool)
    dot[731, 77] = True
    row = sft_runs()[0].row | {"image_id": image.sha256, "initial_mask": 0}
    row["masks"] = [encode_mask(mask).model_dump(mode="json") for mask in (big, dot)]
    row["target_mask"], row["steps"] = row["masks"][1], [step | {"mask": 1} for step in row["steps"]]
    row["messages"] = [
        {**m, "content": [part | ({"mask": 0} if part["type"] == "image" else {}) for part in m["content"]]}
        for m in row["messages"]
    ]
    write_table(shard_path(tmp_path, "images", "train", 0, 1), "images", [image_row(image)])
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [row])
    view = build_view(Corpus(tmp_path), "big")
    height, width = view.images[0]["height"], view.images[0]["width"]
    assert max(height, width) == MAX_SIDE and abs(width / height - 0.6) < 0.005
    masks = [decode_mask(Rle(size=(height, width), counts=counts)) for counts in view.rows[0]["masks"]]
    assert abs(masks[0].mean() - big.mean()) < 0.003
    assert 1 <= masks[1].sum() <= 4  # a dot is still a dot
    y, x = (int(v[0]) for v in np.nonzero(masks[1]))
    assert abs(y / height - 731 / 1000) < 0.01 and abs(x / width - 77 / 600) < 0.01
    assert "1000" in view.images[0]["facts"][0]


@pytest.mark.parametrize(
    "action",
    [
        ClickAction(clicks=(Click(x=0.25, y=0.5, positive=False),)),
        ClickAction(clicks=(Click(x=0.25, y=0.5, positive=True), Click(x=1.0, y=0.0, positive=False))),
        BoxAction(x0=0.1, y0=0.2, x1=0.3, y1=0.4),
        UndoAction(),
        DiscardAction(),
        TerminateAction(),
    ],
)
def test_actions_are_read_in_every_form(action: Any) -> None:
    from ibisagent.actions.syntax import JsonSyntax, PlainSyntax

    forms = [action.model_dump_json(), JsonSyntax.format(action)]
    if not (isinstance(action, ClickAction) and len(action.clicks) > 1):
        plain = PlainSyntax.format(action)
        forms += [plain, f"<action>{plain}</action>", f"  {plain}\n"]
    assert [read_action(form) for form in forms] == [action] * len(forms)


@pytest.mark.parametrize("text", [None, "", "Zoom (0.5000)", "{", '{"kind": "zoom"}', "[[[["])
def test_what_is_no_action_is_none(text: str | None) -> None:
    assert read_action(text) is None


def test_filters_and_sample(corpus: Corpus) -> None:
    assert [row["id"] for row in build_view(corpus, "toy", scenario="absent").rows] == ["toy-3-spleen"]
    assert [row["id"] for row in build_view(corpus, "toy", target="cyst", split="train").rows] == ["toy-2-cyst"]
    whole = [row["id"] for row in build_view(corpus, "toy").rows]
    draws = [[row["id"] for row in build_view(corpus, "toy", sample=2, seed=seed).rows] for seed in range(12)]
    for draw in draws:
        assert len(draw) == 2 and draw == sorted(draw, key=whole.index)
    assert {name for draw in draws for name in draw} == set(whole)
    again = build_view(corpus, "toy", sample=2, seed=3)
    assert [row["id"] for row in again.rows] == draws[3] and again.total == 4
    for wrong in ({"target": "heart"}, {"scenario": "none"}, {"split": "night"}):
        with pytest.raises(InputError, match="|".join(wrong.values())):
            build_view(corpus, "toy", **wrong)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    row = sft_runs()[0].row
    row["target_mask"] = encode_mask(np.ones((3, 3), bool)).model_dump(mode="json")
    write_table(shard_path(tmp_path, "images", "train", 0, 1), "images", [image_row(ct_image())])
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [row])
    with pytest.raises(InputError, match=r"toy-0-liver: a mask is 3 x 3, its image 56 x 40"):
        build_view(Corpus(tmp_path), "toy")


# -- the page --------------------------------------------------------------------------------


def hostile_view(corpus: Corpus) -> Any:
    view = build_view(corpus, HOSTILE)
    for row in view.rows:
        row["instruction"] = row["target"] = row["answer"] = HOSTILE
        row["frames"][0]["thought"] = row["frames"][0]["action"] = HOSTILE
    return view


def test_no_text_becomes_markup(corpus: Corpus) -> None:
    page = render_corpus_page(hostile_view(corpus), Decisions([decided("x", "reject", HOSTILE)]), who=HOSTILE)
    tags = Tags(page).found
    names = [tag for tag, _ in tags]
    assert names.count("script") == 2 and names.count("img") == 0 and HOSTILE not in page
    assert not any(key.startswith("on") or key == "style" for _, attributes in tags for key in attributes)
    data = page_data(page)
    assert data["rows"][0]["instruction"] == HOSTILE and data["decisions"][0]["note"] == HOSTILE
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "document.write" not in page


def test_content_policy_and_self_containment(corpus: Corpus) -> None:
    view = build_view(corpus, "toy")
    for token in (None, "secret"):
        page = render_corpus_page(view, token=token)
        policy = next(a["content"] for tag, a in Tags(page).found if tag == "meta" and "http-equiv" in a)
        assert policy is not None and policy.startswith("default-src 'none'; img-src data:") and "unsafe" not in policy
        assert ("connect-src 'self'" in policy) == (token is not None)
        for element in ("style", "script"):
            body = re.search(rf"<{element}>(.*?)</{element}>", page, re.S)
            assert body is not None
            digest = base64.b64encode(hashlib.sha256(body.group(1).encode()).digest()).decode()
            assert f"{element}-src 'sha256-{digest}'" in policy
        for tag, attributes in Tags(page).found:
            assert tag != "link" and not {"src", "action"} & set(attributes)
            assert (attributes.get("href") or "#").startswith("#")
        assert not re.search(r"@import|url\(", page) and "secret" not in policy
    assert page_data(render_corpus_page(view))["token"] is None


def test_decisions_of_other_trajectories_are_handed_on(corpus: Corpus) -> None:
    held = Decisions([decided("toy-0-liver", "accept"), decided("another corpus's", "reject", "keep me")])
    data = page_data(render_corpus_page(build_view(corpus, "toy", sample=1), held))
    assert {line["trajectory_id"] for line in data["decisions"]} == {"toy-0-liver", "another corpus's"}
    assert Decisions([Decision.model_validate(line) for line in data["decisions"]]) == held


def test_pages_are_the_same_every_time(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_corpus_page(build_view(corpus, "toy", sample=3, seed=1), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    with pytest.raises(InputError, match="cannot be written"):
        write_corpus_page(build_view(corpus, "toy"), tmp_path / "no" / "page.html")


def test_identity_follows_the_build(corpus: Corpus) -> None:
    assert build_view(corpus, "toy").identity == build_view(corpus, "toy", sample=1).identity
    assert build_view(corpus, "toy").identity != build_view(corpus, "other").identity


# -- the server ------------------------------------------------------------------------------


@pytest.fixture
def server(corpus: Corpus, tmp_path: Path) -> Iterator[ReviewServer]:
    with ReviewServer(build_view(corpus, "toy"), tmp_path / "decisions.jsonl", who="Dr A") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: ReviewServer, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for key, value in (
        {"Host": f"127.0.0.1:{server.port}", "Content-Length": str(len(body))} | (headers or {})
    ).items():
        connection.putheader(key, value)
    connection.endheaders(body)
    reply = connection.getresponse()
    found = reply.status, reply.read().decode(), dict(reply.getheaders())
    connection.close()
    return found


def good(server: ReviewServer) -> dict[str, str]:
    return {
        "Origin": f"http://127.0.0.1:{server.port}",
        "X-Ibisagent-Token": server.token,
        "Content-Type": "application/json",
    }


BODY = {"trajectory_id": "toy-0-liver", "decision": "reject", "note": "too small"}


def test_it_listens_on_this_machine_alone(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_page_is_served_with_what_the_file_says_now(server: ReviewServer) -> None:
    path = server.address.split(str(server.port), 1)[1]
    status, page, headers = ask(server, "GET", path)
    assert status == 200 and page_data(page)["token"] == server.token and page_data(page)["decisions"] == []
    assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
    assert ask(server, "POST", "/decide", json.dumps(BODY).encode(), good(server))[:2] == (200, "saved")
    lines = [json.loads(line) for line in server.decisions.read_text(encoding="utf-8").splitlines()]
    assert lines == [{**BODY, "who": "Dr A"}]
    assert page_data(ask(server, "GET", path)[1])["decisions"] == lines


@pytest.mark.parametrize("path", ["/", "/?key=", "/?key=wrong", "/index.html", "/decisions.jsonl", "//", "/../x"])
def test_nothing_else_is_reachable(server: ReviewServer, path: str) -> None:
    status, text, _ = ask(server, "GET", path)
    assert status in (403, 404) and "toy-0-liver" not in text and server.token not in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_other_methods_are_refused(server: ReviewServer, method: str) -> None:
    assert ask(server, method, "/decide", b"{}", good(server))[0] == 501


def test_foreign_names_are_refused(server: ReviewServer) -> None:
    """A page of another site whose name was made to point here (DNS rebinding) asks under its own name."""
    path = server.address.split(str(server.port), 1)[1]
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1",
        f"127.0.0.1:{server.port}.evil.example",
        "",
    ):
        assert ask(server, "GET", path, headers={"Host": host})[0] == 421
        assert ask(server, "POST", "/decide", json.dumps(BODY).encode(), {**good(server), "Host": host})[0] == 421
    assert ask(server, "GET", path, headers={"Host": f"localhost:{server.port}"})[0] == 200
    assert not server.decisions.exists()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"X-Ibisagent-Token": "wrong"}, 403),
        ({"X-Ibisagent-Token": "\u00e9"}, 403),
        ({"X-Ibisagent-Token": None}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Length": "x"}, 413),
        ({"Content-Length": "-1"}, 413),
        ({"Content-Length": "99999999"}, 413),
    ],
)
def test_foreign_decisions_are_refused(server: ReviewServer, change: dict[str, str | None], status: int) -> None:
    headers = {key: value for key, value in {**good(server), **change}.items() if value is not None}
    assert ask(server, "POST", "/decide", json.dumps(BODY).encode(), headers)[0] == status
    assert not server.decisions.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[1]",
        b"[" * 20_000,
        json.dumps({**BODY, "decision": "perhaps"}).encode(),
        json.dumps({**BODY, "trajectory_id": "not in the page"}).encode(),
        json.dumps({**BODY, "note": "x" * (MAX_NOTE_CHARS + 1)}).encode(),
        json.dumps({**BODY, "path": "/etc/passwd"}).encode(),
    ],
)
def test_what_is_no_decision_is_refused(server: ReviewServer, body: bytes) -> None:
    assert ask(server, "POST", "/decide", body, good(server))[0] == 400
    assert not server.decisions.exists()


def test_a_note_of_full_length_fits(server: ReviewServer) -> None:
    body = json.dumps({**BODY, "note": "\u00e9" * MAX_NOTE_CHARS}).encode()
    assert ask(server, "POST", "/decide", body, good(server))[0] == 200
    held = Decisions.read(server.decisions).get("toy-0-liver")
    assert held is not None and len(held.note) == MAX_NOTE_CHARS


def test_failures_are_told(server: ReviewServer, corpus: Corpus, tmp_path: Path) -> None:
    path = server.address.split(str(server.port), 1)[1]
    server.decisions.mkdir()
    status, text, _ = ask(server, "POST", "/decide", json.dumps(BODY).encode(), good(server))
    assert status == 507 and "cannot be written" in text
    assert ask(server, "GET", path)[0] == 500
    with pytest.raises(InputError, match=f"--serve {server.port}"):
        ReviewServer(server.view, tmp_path / "d.jsonl", server.port)
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(InputError, match="line 1"):
        ReviewServer(server.view, tmp_path / "bad.jsonl")
