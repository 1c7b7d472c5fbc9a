"""Tiny random vision-language models, written as folders that look like the published ones."""

from __future__ import annotations

from pathlib import Path

import torch

from ibisagent.actions import DIALECTS
from ibisagent.messages import default_system_prompt

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def make_tokenizer():
    """A byte-pair tokenizer of 400 words, trained on what our prompts say: byte level alone would be long."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [default_system_prompt(dialect) for dialect in DIALECTS.values()] + ["Segment the bright square."]
    backend.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:2] + SPECIAL[3:],
        chat_template=TEMPLATE,
    )


def make_vlm(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a random model of about 0.2 M parameters; `kind` is ``"qwen2_5_vl"`` or ``"qwen3_vl"``."""
    import transformers
    from transformers import Qwen2VLImageProcessorPil

    tokenizer = make_tokenizer()
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    special = {f"{name.replace('_pad', '')}_token_id": value for name, value in ids.items()}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "qwen2_5_vl":
        patch = 14
        text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        vision = {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": patch,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        }
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **special)
        cls = transformers.Qwen2_5_VLForConditionalGeneration
    else:
        patch = 16
        text |= {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        }
        vision = {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": patch,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        }
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **special)
        cls = transformers.Qwen3VLForConditionalGeneration
    torch.manual_seed(seed)
    model = cls(config)
    with torch.no_grad():  # fresh weights are so small that images change nothing; make every input count
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 4 * patch**2, "longest_edge": 64 * patch**2}
    Qwen2VLImageProcessorPil(patch_size=patch, size=size).save_pretrained(folder)
    return folder
