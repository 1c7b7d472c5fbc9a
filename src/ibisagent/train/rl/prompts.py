"""What RL asks: cases with their reference masks, and visual questions, by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ibisagent.engine.questions import QUESTION_KINDS, VisualQuestion, open_questions
from ibisagent.errors import InputError
from ibisagent.train.shards import Shards
from ibisagent.types import Case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.train.nano_scenes import SceneSource

__all__ = ["CorpusPrompts", "MixedPrompts", "Prompt", "Prompts", "RlPrompt", "ScenePrompts", "open_mix", "open_prompts"]


@dataclass(frozen=True, eq=False)
class RlPrompt:
    """One case to act on, and what only rewards may see.

    Parameters
    ----------
    case
        Image, instruction, given mask.
    target
        ``bool`` (H, W) reference mask; None where the target is absent.
    key
        Names it in logs: ``"rl-3f…"`` or ``"scene-17"``.
    """

    case: Case
    target: NDArray[np.bool_] | None
    key: str


Prompt = RlPrompt | VisualQuestion
"""A case to act on, or a question to answer."""


class Prompts(Protocol):
    """Prompts by number; the same number gives the same prompt, on any machine."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Prompt:
        """The prompt of this number, in ``range(len(self))``."""
        ...


class CorpusPrompts:
    """The table ``rl`` (or ``test``) of a corpus that ``ibisagent synthesize`` wrote.

    Parameters
    ----------
    folder
        Of the corpus.
    table, split
        Which rows; all splits if None.

    Raises
    ------
    InputError
        If there is no such corpus, table or split, or it has no row.
    """

    def __init__(self, folder: str | Path, table: str = "rl", split: str | None = None) -> None:
        from ibisagent.engine.corpus.reader import Corpus

        self._corpus = Corpus(folder)
        self._places: list[tuple[Path, int]] = []
        for path in self._corpus.shards(table, split):
            self._places += [(path, i) for i in range(self._corpus.count_of(path, table))]
        if not self._places:
            raise InputError(f"{folder}: the table '{table}' has no row to train on")
        self._shards = Shards()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> RlPrompt:
        path, number = self._places[index]
        row = self._shards.row(path, number)
        case = self._corpus.case(row)
        target = self._corpus.target(row)
        if target is not None and target.shape != (case.image.height, case.image.width):
            raise InputError(f"{case.case_id}: the target is not of the image's size; build the corpus again")
        return RlPrompt(case, target, case.case_id)


class ScenePrompts:
    """Prompts drawn afresh from mini's train split (warped) and from phantoms; nano's gym.

    Parameters
    ----------
    source
        Where scenes come from.
    number
        How many; prompt ``i`` is scene ``offset + i``.
    offset
        Number of the first scene. Trajectories for SFT use the numbers from 0 on.
    given_share
        Share of the present targets that come with a given mask, damaged or of another structure.
    library
        Of the instructions' templates.
    """

    def __init__(
        self,
        source: SceneSource,
        number: int,
        offset: int = 1_000_000,
        given_share: float = 0.1,
        library: str = "core",
    ) -> None:
        self.source, self.number, self.offset = source, number, offset
        self.given_share, self.library = given_share, library

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> RlPrompt:
        from ibisagent.engine.language.instructions import draw_instruction
        from ibisagent.engine.scenarios import Dropped, starting_mask
        from ibisagent.engine.walk import Subject

        if not 0 <= index < self.number:
            raise IndexError(index)
        scene = self.source.scene(self.offset + index)
        rng = np.random.default_rng([self.source.seed, 29, self.offset + index])
        given = None
        if scene.target is not None and rng.random() < self.given_share:
            subject = Subject(scene.image, scene.name, scene.target, scene.others)
            scenario: Any = "mismatched_mask" if rng.random() < 0.5 and scene.others else "corrupted_mask"
            try:
                given = starting_mask(scenario, subject, rng)
            except Dropped:
                given = None
        said = draw_instruction(
            scene.name,
            scene.image.modality,
            rng,
            stage="start" if given is None else "refine",
            library=self.library,  # type: ignore[arg-type]
        )
        key = f"scene-{self.offset + index}"
        case = Case(scene.image, said.text, given, case_id=key, target=scene.name, group=scene.home)
        return RlPrompt(case, scene.target, key)


class MixedPrompts:
    """Prompts of several places, one after another; whoever draws them shuffles.

    Parameters
    ----------
    cases, questions
        Where each kind is from.
    share
        Of the questions among all; the scarcer kind is repeated up to it. None: every prompt stands once.

    Attributes
    ----------
    notes
        For people: how many questions there are, and what was left out.

    Raises
    ------
    InputError
        If there is a share and one of the kinds is missing.
    """

    def __init__(self, cases: Sequence[Prompts], questions: Sequence[Prompts], share: float | None = None) -> None:
        sizes = [sum(len(part) for part in kind) for kind in (cases, questions)]
        if share is not None:
            if not all(sizes):
                missing = "segmentation prompts" if sizes[1] else "visual questions"
                raise InputError(
                    f"--vqa-share mixes two kinds of --prompts; there are no {missing}, name some or leave it"
                )
            odds = share / (1 - share)
            sizes = [max(sizes[0], round(sizes[1] / odds)), max(sizes[1], round(sizes[0] * odds))]
        self.num_cases, self.num_questions = sizes
        self._cases, self._questions = list(cases), list(questions)
        self.notes = [note for part in questions for note in getattr(part, "notes", ())]

    def __len__(self) -> int:
        return self.num_cases + self.num_questions

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < len(self):
            raise IndexError(index)
        kind, place = (self._cases, index) if index < self.num_cases else (self._questions, index - self.num_cases)
        place %= sum(len(part) for part in kind)
        for part in kind:
            if place < len(part):
                break
            place -= len(part)
        return part[place]


def open_mix(specs: Sequence[str], share: float | None = None, seed: int = 0) -> MixedPrompts:
    """Prompts of several specs together.

    Parameters
    ----------
    specs
        Each as :func:`open_prompts` takes it.
    share
        Of the visual questions, see :class:`MixedPrompts`.
    seed
        Of the scenes.

    Raises
    ------
    InputError
        As :func:`open_prompts` and :class:`MixedPrompts`.
    """
    opened = [(_asks(spec), open_prompts(spec, seed)) for spec in specs]
    return MixedPrompts([p for asks, p in opened if not asks], [p for asks, p in opened if asks], share)


def _asks(spec: str) -> bool:
    """Whether a spec names visual questions."""
    kind, _, rest = spec.partition(":")
    return kind in QUESTION_KINDS and (kind != "corpus" or "table=vqa" in rest.partition("?")[2].split("&"))


def open_prompts(spec: str, seed: int = 0) -> Prompts:
    """Prompts by a spec.

    Parameters
    ----------
    spec
        ``corpus:FOLDER[?table=rl&split=train]``, or ``scenes:CASES.jsonl[?number=20000&real_share=0.6&absent_share=0.18
        &given_share=0.1&instances=1&offset=1000000]``: mini's train split without the development images, and phantoms;
        with ``real_share=0`` phantoms alone; or visual questions, ``corpus:FOLDER?table=vqa`` or a set as
        :func:`~ibisagent.engine.questions.open_questions` takes it: the closed ones, of the split ``train`` unless the
        spec names another.
    seed
        Of the scenes.

    Raises
    ------
    InputError
        If the spec cannot be read, or what it names is not there.
    """
    from urllib.parse import parse_qsl

    if _asks(spec):
        return open_questions(spec, split="train").closed()
    kind, _, rest = spec.partition(":")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if kind == "corpus" and place:
        unknown = sorted(set(options) - {"table", "split"})
        if unknown:
            raise InputError(f"prompts {spec}: corpus takes no {', '.join(unknown)}; it takes table and split")
        return CorpusPrompts(place, options.get("table", "rl"), options.get("split"))
    if kind == "scenes" and place:
        return _scenes(spec, place, options, seed)
    sets = ", ".join(f"{name}:…" for name in QUESTION_KINDS if name != "corpus")
    raise InputError(f"prompts '{spec}': say corpus:FOLDER or scenes:CASES.jsonl, or for visual questions {sets}")


_SCENE_OPTIONS = {
    "number": 20_000, "real_share": 0.6, "absent_share": 0.18, "given_share": 0.1, "instances": 1.0,
    "offset": 1_000_000,
}  # fmt: skip


def _scenes(spec: str, place: str, options: dict[str, str], seed: int) -> ScenePrompts:
    from ibisagent.train.nano_corpus import training_scenes

    unknown = sorted(set(options) - set(_SCENE_OPTIONS))
    if unknown:
        known = ", ".join(_SCENE_OPTIONS)
        raise InputError(f"prompts {spec}: scenes takes no {', '.join(unknown)}; it takes {known}")
    values: dict[str, Any] = dict(_SCENE_OPTIONS)
    for name, text in options.items():
        try:
            values[name] = type(_SCENE_OPTIONS[name])(text)
        except ValueError:
            raise InputError(f"prompts {spec}: {name} must be a number, not '{text}'") from None
        if name.endswith("_share") and not 0 <= values[name] <= 1:
            raise InputError(f"prompts {spec}: {name} must be from 0 to 1, not {text}")
        least = {"number": 1, "offset": 0, "instances": 0}.get(name)
        if least is not None and not least <= values[name] < float("inf"):
            raise InputError(f"prompts {spec}: {name} must be at least {least}, not {text}")
    drawn = {name: values[name] for name in ("real_share", "absent_share", "instances")}
    source = training_scenes(Path(place), seed=seed, **drawn)
    return ScenePrompts(source, values["number"], values["offset"], values["given_share"])
