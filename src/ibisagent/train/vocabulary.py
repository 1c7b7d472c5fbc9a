"""Build nano's tokenizer and processor: a small byte-level BPE, plus the coordinates of the grid.

The coordinates are ordinary strings (``"0.5078, 0.2578"``) that the tokenizer keeps whole; any
other number is spelt by the byte-level part, so every text can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ibisagent.policies.nano_processor import IMAGE_TOKEN, NanoImageProcessor, NanoProcessor, cell_text

__all__ = ["ASSISTANT", "END", "SPECIALS", "build_processor", "save_processor"]

ASSISTANT = "<|assistant|>"
END = "<|end|>"
SPECIALS = ["<|pad|>", "<|unk|>", "<|bos|>", IMAGE_TOKEN, "<|coordinate|>", "<|system|>", "<|user|>", ASSISTANT, END]
"""The first entries, in this order; ``<|coordinate|>`` is never written, it stands for all coordinates."""

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_processor(
    texts: Iterable[str],
    *,
    size: int = 1024,
    grid: int = 64,
    image_tokens: int = 64,
    image_size: int = 256,
    phrases: Sequence[str] = (),
) -> NanoProcessor:
    """Train the tokenizer on ``texts`` and wrap it.

    Parameters
    ----------
    texts
        What the byte pairs are counted in; any other text can still be written.
    size
        Most entries of the plain vocabulary; its true size is ``len(tokenizer) - grid ** 2``.
    grid
        Cells a side of the coordinates.
    image_tokens
        Placeholders that an image becomes.
    image_size
        Pixels a side that images are stretched to.
    phrases
        Strings that become one entry each, such as those of the grammar: shorter replies for small budgets.

    Returns
    -------
    NanoProcessor
        With coordinate ``i`` at id ``len(tokenizer) - grid ** 2 + i``.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in phrases])
    tokenizer.add_tokens([AddedToken(cell_text(i, grid), normalized=False, special=False) for i in range(grid * grid)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        bos_token="<|bos|>",
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    worker = NanoImageProcessor(size={"height": image_size, "width": image_size})
    return NanoProcessor(worker, fast, chat_template=CHAT_TEMPLATE, image_tokens=image_tokens)


def save_processor(processor: NanoProcessor, folder: Path) -> None:
    """Write tokenizer, image processor and template where ``AutoProcessor`` finds them."""
    processor.save_pretrained(folder)
