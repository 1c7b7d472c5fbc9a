"""Rows of corpora as conversations to learn, read and drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import BoxAction, Click, ClickAction, Turn
from ibisagent.engine.corpus.converters.dialogue import vqa_messages
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.records import dialect_of, dialects_of
from ibisagent.errors import ActionError, InputError
from ibisagent.io.files import display_name
from ibisagent.train.shards import Shards

if TYPE_CHECKING:
    from ibisagent.train.sft.config import SftConfig

__all__ = ["Conversation", "Conversations", "Place", "open_conversations", "snapped"]

Message = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Conversation:
    """What a model is shown and what of it is learnt.

    Parameters
    ----------
    name
        Id of the row.
    messages
        As :func:`ibisagent.messages.build_messages` makes them, ending with a reply; images drawn.
    learn
        One flag for each reply.
    row
        The row of the corpus.
    """

    name: str
    messages: list[Message]
    learn: tuple[bool, ...]
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a row stands, and about how long it is.

    Parameters
    ----------
    corpus, shard, row
        Number of the corpus, of its shard, of the row in it.
    table
        ``sft`` or ``vqa``.
    turns
        Replies.
    pixels
        Of all images together.
    """

    corpus: int
    table: str
    shard: int
    row: int
    turns: int
    pixels: int


class Conversations:
    """A sequence of conversations; only the places of the rows are held. It can be sent to another process.

    Parameters
    ----------
    folders
        Of corpora.
    places
        Which rows, in which order.
    shards
        For each corpus and table, the files.
    system_prompt
        Takes the place of the corpus's; None leaves it.
    learn_wrong
        Whether replies without a loss span are learnt.
    grid
        Move clicks to the centres of so many cells a side, for models that can say no other (nano); None leaves them.
    """

    def __init__(
        self,
        folders: Sequence[str],
        places: Sequence[Place],
        shards: Mapping[tuple[int, str], tuple[Path, ...]],
        *,
        system_prompt: str | None = None,
        learn_wrong: bool = False,
        grid: int | None = None,
    ) -> None:
        self.folders, self.places, self.shards = tuple(folders), list(places), dict(shards)
        self.system_prompt, self.learn_wrong, self.grid = system_prompt, learn_wrong, grid
        self._corpora: dict[int, Corpus] = {}
        self._shards = Shards()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_corpora": {}}

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Conversation:
        """Conversation number `index`.

        Raises
        ------
        InputError
            If the row or its image is damaged, or a loss span covers a part of a reply.
        """
        place = self.places[index]
        row = self._shards.row(self.shards[place.corpus, place.table][place.shard], place.row)
        corpus = self.corpus(place)
        if place.table == "vqa":
            row = {**row, "messages": vqa_messages(row), "masks": []}
            return Conversation(row["question_id"], corpus.messages(row), (True,), row)
        messages, learn = corpus.messages(row), self._learn(row)
        if self.system_prompt is not None:
            head = [{"role": "system", "content": [{"type": "text", "text": self.system_prompt}]}]
            messages = [*(head if self.system_prompt else []), *(m for m in messages if m["role"] != "system")]
        if self.grid is not None:
            messages = snapped(messages, self.grid)
        return Conversation(row["trajectory_id"], messages, learn, row)

    def corpus(self, place: Place) -> Corpus:
        """The corpus that a place is in."""
        if place.corpus not in self._corpora:
            self._corpora[place.corpus] = Corpus(self.folders[place.corpus])
        return self._corpora[place.corpus]

    def dialects(self, most: int = 16) -> tuple[str, ...]:
        """Names of the dialects that can read most of the replies, by `most` trajectories; none without trajectories.

        Raises
        ------
        InputError
            If a row is damaged.
        """
        places = [number for number, place in enumerate(self.places) if place.table != "vqa"]
        replies = [
            "".join(part.get("text", "") for part in message["content"])
            for number in places[:: max(1, len(places) // most)][:most]
            for message in self[number].messages
            if message["role"] == "assistant"
        ]
        return dialects_of(replies) if replies else ()

    def _learn(self, row: Mapping[str, Any]) -> tuple[bool, ...]:
        spans = {span["message"]: (span["start"], span["end"]) for span in row["loss_spans"]}
        flags = []
        for number, message in enumerate(row["messages"]):
            if message["role"] != "assistant":
                continue
            length = sum(len(part["text"]) for part in message["content"])
            if number in spans and spans[number] != (0, length):
                raise InputError(f"{row['trajectory_id']}: a loss span covers a part of a reply; whole ones are learnt")
            flags.append(self.learn_wrong or number in spans)
        return tuple(flags)


def open_conversations(
    config: SftConfig, system_prompt: str | None = None, grid: int | None = None
) -> tuple[Conversations, Conversations | None]:
    """What a run learns, and what its loss is measured on.

    Parameters
    ----------
    config
        Which corpora, splits, scenarios and shares.
    system_prompt, grid
        See :class:`Conversations`.

    Raises
    ------
    InputError
        If there is no such corpus or split, or nothing is left to learn.
    """
    shards: dict[tuple[int, str], tuple[Path, ...]] = {}
    train: list[Place] = []
    measured: list[Place] = []
    questions: list[Place] = []
    for number, folder in enumerate(config.corpus):
        corpus = Corpus(folder)
        known = corpus.splits("sft")
        asks = config.vqa_share > 0 and "vqa" in corpus.tables
        if not known and not asks:
            hint = "; --vqa-share mixes its visual questions in" if "vqa" in corpus.tables else ""
            raise InputError(f"{display_name(folder)}: no trajectories (table sft) in it{hint}")
        there = {*known, *(corpus.splits("vqa") if asks else ())}
        for split in {*config.splits, *config.eval_splits} - there:
            raise InputError(
                f"{display_name(folder)}: no split '{split}' of 'sft'; there is {', '.join(sorted(there))}"
            )
        areas = {row["image_id"]: row["width"] * row["height"] for row in _facts(corpus)}
        shards[number, "sft"] = files = corpus.shards("sft") if known else ()
        of_split = {path: split for split in known for path in corpus.shards("sft", split)}
        for index, path in enumerate(files):
            to_learn = of_split[path] in config.splits
            if not to_learn and of_split[path] not in config.eval_splits:
                continue
            columns = ["image_id", "source", "group", "sample", "scenario", "steps"]
            for at, row in enumerate(corpus.shard_rows(path, "sft", columns)):
                if not _wanted(row["scenario"], config):
                    continue
                turns = len(row["steps"])
                place = Place(number, "sft", index, at, turns, turns * areas.get(row["image_id"], 0))
                out = not to_learn or (config.eval_share > 0 and _kept_out(row, config))
                (measured if out else train).append(place)
        if asks:
            shards[number, "vqa"] = corpus.shards("vqa")
            split_of = {path: split for split in corpus.splits("vqa") for path in corpus.shards("vqa", split)}
            for index, path in enumerate(shards[number, "vqa"]):
                if split_of[path] not in config.splits:
                    continue
                for at, row in enumerate(corpus.shard_rows(path, "vqa", ["image_id", "source", "group", "sample"])):
                    if not (config.eval_share > 0 and _kept_out(row, config)):
                        questions.append(Place(number, "vqa", index, at, 1, areas.get(row["image_id"], 0)))
    rng = np.random.default_rng([config.seed, 11])
    if config.max_rows is not None and len(train) > config.max_rows:
        train = [train[i] for i in sorted(rng.choice(len(train), config.max_rows, replace=False).tolist())]
    if not train:
        raise InputError("nothing to learn: no trajectory of the corpus has one of the wanted splits and scenarios")
    if not measured and (config.eval_share or config.eval_splits):
        raise InputError("nothing to measure on: no patient was drawn; raise --eval-share or change --seed")
    if config.vqa_share:
        if not questions:
            raise InputError("vqa_share is given, but no corpus holds visual questions of these splits")
        count = round(len(train) * config.vqa_share / (1 - config.vqa_share))
        whole, rest = divmod(count, len(questions))
        train += questions * whole + [questions[int(i)] for i in rng.permutation(len(questions))[:rest]]

    def make(places: list[Place]) -> Conversations:
        """The conversations of some places, by the settings."""
        return Conversations(
            config.corpus,
            places,
            shards,
            system_prompt=system_prompt,
            learn_wrong=config.learn_wrong,
            grid=grid,
        )

    return make(train), make(measured) if measured else None


def snapped(messages: Sequence[Message], grid: int) -> list[Message]:
    """The messages with every click and box moved to the centres of `grid` x `grid` cells.

    Replies that are no actions stay as they are.
    """
    replies = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    dialect = dialect_of(replies)

    def centre(value: float) -> float:
        """The middle of the cell that a fraction of the image's side lies in, with four decimals."""
        return round((min(int(value * grid), grid - 1) + 0.5) / grid, 4)

    def moved(text: str) -> str:
        """A reply with its clicks and boxes at middles of cells; as it is where it is no turn of the dialect."""
        try:
            turn = dialect.parse(text)
        except ActionError:
            return text
        action = turn.action
        if isinstance(action, ClickAction):
            clicks = tuple(Click(x=centre(c.x), y=centre(c.y), positive=c.positive) for c in action.clicks)
            action = ClickAction(clicks=clicks)
        elif isinstance(action, BoxAction):
            corners = {name: centre(getattr(action, name)) for name in ("x0", "y0", "x1", "y1")}
            if corners["x0"] >= corners["x1"] or corners["y0"] >= corners["y1"]:
                return text
            action = action.model_copy(update=corners)
        else:
            return text
        return dialect.format(Turn(thought=turn.thought, action=action))

    return [
        {**m, "content": [{"type": "text", "text": moved(m["content"][0]["text"])}]} if m["role"] == "assistant" else m
        for m in messages
    ]


def _facts(corpus: Corpus) -> Iterator[dict[str, Any]]:
    return corpus.rows("images", columns=["image_id", "width", "height"])


def _wanted(scenario: str, config: SftConfig) -> bool:
    from ibisagent.train.sft.config import REFLECTION

    if config.scenarios is not None and scenario not in config.scenarios:
        return False
    return config.reflection or scenario not in REFLECTION


def _kept_out(row: Mapping[str, Any], config: SftConfig) -> bool:
    """Whether a patient is kept out; a hash of the name decides, so that more rows change nothing for the others."""
    import hashlib

    patient = row["group"] if row["group"] is not None else row["sample"]  # phantoms are nobody's
    key = f"{config.seed}\x1f{row['source']}\x1f{patient}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64 < config.eval_share
