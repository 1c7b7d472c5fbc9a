"""The parts of NanoVLM beside its language model: vision tower, belief, pointer, summary."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

__all__ = ["CHOICE_WEIGHT", "Belief", "Choice", "NanoConfig", "Pointer", "Summary", "Vision", "choice_loss"]


class NanoConfig(PretrainedConfig):
    """Sizes of a NanoVLM.

    Parameters
    ----------
    vocab_size
        Entries of the plain vocabulary; the coordinates follow it.
    grid
        Cells a side of the coordinate vocabulary (``grid * grid`` entries).
    image_tokens_side
        Tokens a side that an image becomes.
    chooses
        Whether the model has a :class:`Choice`; weights from before it was there have none.

    Notes
    -----
    The tower's strides bind three of the sizes: ``image_size == 32 * image_tokens_side`` and
    ``grid == 8 * image_tokens_side``. The rest are widths and depths of the two towers.
    """

    model_type = "ibis_nano"

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        intermediate_size: int = 512,
        max_position_embeddings: int = 4096,
        image_size: int = 256,
        grid: int = 64,
        image_tokens_side: int = 8,
        key_size: int = 96,
        image_token_id: int = 3,
        coordinate_token_id: int = 4,
        vision_widths: tuple[int, ...] = (32, 64, 96, 160, 256),
        dropout: float = 0.0,
        chooses: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.image_size = image_size
        self.grid = grid
        self.image_tokens_side = image_tokens_side
        self.key_size = key_size
        self.image_token_id = image_token_id
        self.coordinate_token_id = coordinate_token_id
        self.vision_widths = list(vision_widths)
        self.dropout = dropout
        self.chooses = chooses
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


def _conv(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a = _conv(c, c)
        self.b = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> the same."""
        return F.relu(x + self.b(self.a(x)))


class Vision(nn.Module):
    """(N, 3, S, S) -> features at strides 4, 8, 16 and tokens at stride 32."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        w = config.vision_widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_conv(3, w[0], 2)),
                nn.Sequential(_conv(w[0], w[1], 2), _Residual(w[1])),
                nn.Sequential(_conv(w[1], w[2], 2), _Residual(w[2])),
                nn.Sequential(_conv(w[2], w[3], 2), _Residual(w[3])),
                nn.Sequential(_conv(w[3], w[4], 2)),
            ]
        )
        n = config.image_tokens_side
        self.position = nn.Parameter(torch.randn(1, n * n, w[4]) * 0.02)
        self.mixer = nn.TransformerEncoderLayer(w[4], 4, 2 * w[4], 0.0, "gelu", batch_first=True, norm_first=True)
        self.out = nn.Linear(w[4], config.hidden_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, S, S) pixels in [-1, 1] -> (N, tokens, hidden_size) and the features at strides 4, 8, 16."""
        features = []
        x = pixels
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        tokens = self.mixer(x.flatten(2).transpose(1, 2) + self.position)
        return self.out(tokens), features[1:4]


class Belief:
    """Where the target and the shown mask are believed to lie, as plain functions of the two maps' logits.

    Maps are (N, 2, cells), the target's first, then the mask's; a third one, of a :class:`Choice`, is not read.
    Everything is computed in ``float32``.
    """

    windows = (5, 7, 11)
    """Cells a side of the averages in :meth:`channels`, one on top of the other: the mean around a cell tells how deep
    it lies in a region."""

    num_channels = 3 * (1 + len(windows))
    num_facts = 16

    @classmethod
    def channels(cls, logits: Tensor) -> Tensor:
        """(N, num_channels, cells) log averages of what is missed, of what is too much, and of the target."""
        n, _, cells = logits.shape
        side = round(cells**0.5)
        target, shown = logits[:, :2].float().sigmoid().unbind(1)
        maps = torch.stack([target * (1 - shown), shown * (1 - target), target], 1).reshape(n, 3, side, side)
        means = [maps]
        for w in cls.windows:
            means.append(F.avg_pool2d(means[-1], w, 1, w // 2))
        return (torch.cat(means, 1).flatten(2) + 1e-3).log()

    @classmethod
    def facts(cls, logits: Tensor) -> Tensor:
        """(N, num_facts) areas, overlaps and maxima: how much there is of the target, and how well the mask fits."""
        n, _, cells = logits.shape
        side = round(cells**0.5)
        target, shown = logits[:, :2].float().sigmoid().unbind(1)
        missed, excess, both = target * (1 - shown), shown * (1 - target), target * shown
        areas = torch.stack([m.mean(-1) for m in (target, shown, missed, excess, both)], 1)
        at, sh, mi, ex, bo = areas.unbind(1)
        ratios = torch.stack(
            [bo / (at + sh - bo + 1e-3), mi / (at + 1e-3), ex / (sh + 1e-3), (mi - ex) / (mi + ex + 1e-3)], 1
        )
        maps = torch.stack([target, shown, missed, excess], 1)
        blurred = F.avg_pool2d(maps.reshape(n, 4, side, side), 5, 1, 2).flatten(2)
        peaks = torch.cat([blurred.amax(-1), maps[:, :1].amax(-1)], 1)
        sure = (target * target).sum(-1, keepdim=True) / (target.sum(-1, keepdim=True) + 1e-2)
        logs = (areas + 1e-4).log() / 4 + 1
        # The last repeats the first, moved by one half: of no use, but the shipped weights were trained with it.
        return torch.cat([logs, ratios, peaks, sure, logs[:, :1] + 0.5], 1)


class Choice(nn.Module):
    """Which one of several is meant: the leftmost, the largest.

    A convolution knows what a place looks like and not what all others look like, and attention over tokens learns to
    compare them slowly. Here the comparison is built in: every cell has a score, how surely it belongs to what is asked
    for plus its place and its size as the words weigh them, and a softmax over the image lets the best one win. What
    lies near the winner is then lifted in the belief of the target, as far as the words ask for it (for "the liver",
    not at all). Training tells the winner where there is one (:func:`choice_loss`).
    """

    windows = (5, 9, 15)
    """Cells a side of the averages around the winner, one on top of the other: how near a cell lies to it."""

    _steep = 8.0

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        d, key = config.hidden_size, config.key_size
        self.side, self.scale = config.grid, key**-0.5
        self.sizes = (key, key, 2, len(self.windows))
        self.ask = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, sum(self.sizes)))

    def forward(self, state: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(N, d) states and (N, key_size, cells) keys -> log-probabilities of the winner's cell, and what is added to
        the target's logits, both ``float32`` (N, cells)."""
        kind, size, way, pull = (v.float() for v in self.ask(state).split(self.sizes, -1))
        asked = torch.stack([kind, size], 1).to(keys.dtype) * self.scale
        belongs, large = torch.bmm(asked, keys).float().unbind(1)
        at = torch.linspace(-1, 1, self.side, device=keys.device)
        place = torch.stack([at.repeat(self.side), at.repeat_interleave(self.side)])
        chosen = (F.logsigmoid(belongs) + large + self._steep * way @ place).log_softmax(-1)
        near, maps = chosen.exp().reshape(-1, 1, self.side, self.side), []
        for window in self.windows:
            near = F.avg_pool2d(near, window, 1, window // 2)
            maps.append(near.flatten(1) / near.flatten(1).amax(-1, keepdim=True))
        lifts = (torch.stack(maps, 1) + 1e-2).log() + 2.0
        return chosen, (pull[..., None] * lifts).sum(1)


CHOICE_WEIGHT = 0.3
"""Of :func:`choice_loss` beside the losses of the belief."""


def choice_loss(chosen: Tensor, target: Tensor) -> Tensor:
    """How unlikely a choice holds the target: minus the log of its probability there, a mean over rows.

    Parameters
    ----------
    chosen
        (N, cells) log-probabilities of :class:`Choice`.
    target
        (N, cells) share of the target in every cell; rows without any count as 0.
    """
    inside = (target > 0.5).float()
    there = inside.sum(-1) > 0
    missed = -torch.logsumexp(chosen + (inside + 1e-9).log(), -1)
    return (missed * there).sum() / there.sum().clamp_min(1)


class Pointer(nn.Module):
    """Feature map of one image at the coordinate grid, aware of the language states at its tokens.

    The state at an image's last token has read the instruction and the image. It weighs the channels of the
    decoder, and asks two questions of the map: where the target is, and where the shown mask is. Training gives both
    answers (a supervised attention, 64 x 64 cells); they are never shown to anyone, but what follows from them
    (missed, too much) becomes part of the map that clicks are drawn from.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        w, d = config.vision_widths, config.hidden_size
        self.side = config.image_tokens_side
        self.widths = (w[3], w[2], w[1])
        self.from_language = nn.Conv2d(d, w[3], 1)
        self.weigh = nn.Linear(d, sum(self.widths))
        self.mid = nn.Sequential(_Residual(w[3]), nn.Conv2d(w[3], w[2], 1))
        self.low = nn.Sequential(_Residual(w[2]), nn.Conv2d(w[2], w[1], 1))
        self.fine = _Residual(w[1])
        self.key = nn.Linear(w[1], config.key_size)
        self.position = nn.Parameter(torch.zeros(1, config.key_size, config.grid // 4, config.grid // 4))
        self.ask = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, 2 * config.key_size))
        self.bias = nn.Parameter(torch.full((2, 1), -2.0))
        self.choice = Choice(config) if config.chooses else None
        self.query = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, config.key_size + Belief.num_channels))
        self.scale = config.key_size**-0.5

    def keys(self, states: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, tokens, d) states and features at strides 4, 8, 16 -> keys and belief.

        Keys are (N, key_size, grid * grid), the belief's logits (N, 2, grid * grid) in ``float32``; with a
        :class:`Choice`, its log-probabilities are a third map.
        """
        n = states.shape[0]
        weigh = [(1 + v)[..., None, None] for v in self.weigh(states[:, -1]).split(self.widths, -1)]
        x = self.from_language(states.transpose(1, 2).reshape(n, -1, self.side, self.side))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = self.mid(F.relu(x + features[2]) * weigh[0])
        x = self.low(F.relu(F.interpolate(x, scale_factor=2, mode="nearest") + features[1]) * weigh[1])
        x = self.fine(F.relu(F.interpolate(x, scale_factor=2, mode="nearest") + features[0]) * weigh[2])
        # As rows of cells: the tower's layout is channels last, and nothing has to be copied then.
        k = self.key(x.permute(0, 2, 3, 1).flatten(1, 2))
        place = F.interpolate(self.position, size=x.shape[-2:], mode="bilinear", align_corners=False)
        k = (k + place.flatten(2).transpose(1, 2).to(k.dtype)).transpose(1, 2)
        asked = self.ask(states[:, -1]).reshape(n, 2, -1) * self.scale
        belief = torch.bmm(asked.to(k.dtype), k).float() + self.bias
        if self.choice is not None:
            chosen, lifted = self.choice(states[:, -1], k)
            belief = torch.stack([belief[:, 0] + lifted, belief[:, 1], chosen], 1)
        return k, belief

    def score(self, hidden: Tensor, keys: Tensor, belief: Tensor) -> Tensor:
        """(M, d) states, and keys and belief of each one's image -> (M, cells) scores."""
        channels = Belief.channels(belief).to(keys.dtype)
        of_keys, of_channels = self.query(hidden).to(keys.dtype).split((keys.shape[1], channels.shape[1]), -1)
        return (torch.bmm(of_keys[:, None] * self.scale, keys) + torch.bmm(of_channels[:, None], channels))[:, 0]


class Summary(nn.Module):
    """Adds to a language state what the image's map says as a whole, seen in the light of that state.

    Whether anything is missed, or anything of the target is there at all, need not be found by attention alone then.
    """

    def __init__(self, config: NanoConfig, width: int = 128) -> None:
        super().__init__()
        self.key_size = config.key_size
        self.norm = nn.LayerNorm(2 * config.key_size)
        self.image = nn.Linear(2 * config.key_size, width)
        self.facts = nn.Linear(2 * Belief.num_facts + 1, width)
        self.state = nn.Linear(config.hidden_size, width, bias=False)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, config.hidden_size)

    def pool(self, keys: Tensor, belief: Tensor, follows: Tensor) -> Tensor:
        """What N maps say as a whole, (N, size): mean key, mean key where the target is believed, facts of the belief,
        and those of the image before in the same conversation.

        Parameters
        ----------
        keys, belief
            From :meth:`Pointer.keys`, the images of a conversation one after another.
        follows
            ``bool`` (N,), whether the image before belongs to the same conversation.
        """
        facts = Belief.facts(belief)
        flag = follows.to(facts.dtype)[:, None]
        before = torch.cat([torch.zeros_like(facts[:1]), facts[:-1]]) * flag
        target = belief[:, :1].sigmoid()
        there = (target / (target.sum(-1, keepdim=True) + 1)).to(keys.dtype)
        everywhere = torch.full_like(there, 1 / there.shape[-1])
        means = torch.bmm(torch.cat([everywhere, there], 1), keys.transpose(1, 2)).flatten(1).float()
        return torch.cat([means, facts, before, flag], 1)

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """(M, d) states and (M, size) of each one's image -> (M, d), to be added to the states."""
        maps, facts = pooled.split((2 * self.key_size, pooled.shape[-1] - 2 * self.key_size), -1)
        x = F.gelu(self.image(self.norm(maps)) + self.facts(facts) + self.state(hidden))
        return self.out(F.gelu(self.mix(x)))
