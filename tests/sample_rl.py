"""For tests of reinforcement learning: replies, a sampler that reads from a script, a segmenter that counts, a nano."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Image, Prediction, Prompt

GRID, SIDE = 16, 2

INSIDE = "<think>t</think><action>Positive Point (0.6328, 0.4271)</action>"
OUTSIDE = "<think>t</think><action>Positive Point (0.0703, 0.9000)</action>"
FOUND = "<think>t</think><action>Terminate</action><answer>Found: it</answer>"
ABSENT = "<think>t</think><action>Terminate</action><answer>Absent: no</answer>"
UNDO = "<think>t</think><action>Undo</action>"


class ScriptedSampler:
    """Gives every run the replies that a script has for its key, and notes what it was shown.

    Parameters
    ----------
    renderer
        Writes the replies as tokens.
    script
        Replies by ``"group/sibling"``; a reply that ends with ``"…"`` is cut off there, without its end of turn.

    Attributes
    ----------
    asked
        (key, ids, number of images) of every context, in order.
    seeds
        Of the sessions.
    """

    def __init__(self, renderer: Any, script: Mapping[str, Sequence[str]]) -> None:
        self.renderer, self.script = renderer, {key: list(replies) for key, replies in script.items()}
        self.asked: list[tuple[str, list[int], int]] = []
        self.seeds: list[int] = []

    def session(self, seed: int) -> ScriptedSampler:
        self.seeds.append(seed)
        return self

    def sample(self, contexts: Sequence[Any]) -> list[Any]:
        from ibisagent.train.rl.sampler import Sample

        found = []
        for context in contexts:
            self.asked.append((context.key, list(context.ids), len(context.images)))
            text = self.script[context.key].pop(0)
            ids = [int(i) for i in self.renderer.reply(text.removesuffix("…"))]
            cut = text.endswith("…")
            found.append(Sample(tuple(ids[:-1] if cut else ids), not cut))
        return found


class CountingSegmenter(RulesSegmenter):
    """Region growing that counts, and fails where a click lies on a given pixel row."""

    def __init__(self, broken_row: int | None = None) -> None:
        self.broken_row = broken_row
        self.num_encoded = 0
        self.calls: list[int] = []

    def encode(self, image: Image) -> Any:
        self.num_encoded += 1
        return super().encode(image)

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        self.calls.append(len(prompts))
        if any(click.y == self.broken_row for prompt in prompts for click in prompt.clicks):
            raise RuntimeError("out of memory")
        return super().predict(embedding, prompts)


def make_small_nano(vocabulary: Any, seed: int = 0) -> Any:
    """A random nano whose weights are so large that every input counts; its replies are short and hold coordinates."""
    import torch

    from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration, register

    register()
    torch.manual_seed(seed)
    tokenizer = vocabulary.tokenizer
    model = NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=len(tokenizer) - GRID**2, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, image_size=32 * SIDE, grid=GRID, image_tokens_side=SIDE, key_size=16,
            vision_widths=(8, 8, 8, 16, 16), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
        model.language.norm.weight.mul_(2.0)
        model.pointer.query[-1].weight.mul_(4.0)
        table = model.language.embed_tokens.weight
        table[[tokenizer.eos_token_id, model.config.coordinate_token_id]] *= 2.5
        for word in ("<|system|>", "<|user|>", "<|assistant|>", "<|unk|>", "<|bos|>", "<|pad|>"):
            table[tokenizer.convert_tokens_to_ids(word)] = 0  # what no trained model writes
    return model.eval()
