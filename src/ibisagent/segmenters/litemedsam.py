"""The default segmenter: LiteMedSAM for boxes, ClickNet for clicks and prior masks.

LiteMedSAM as released understands boxes and nothing else, and its encoder is dear; ClickNet
understands clicks, priors and boxes, and is cheap. So encoding an image prepares ClickNet's planes,
and LiteMedSAM's embedding is computed when the first box arrives and kept with the image's. A box alone
is answered by LiteMedSAM; its logits then serve ClickNet as the prior for the clicks that follow.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibisagent.errors import InputError, ToolError
from ibisagent.hashing import file_hash
from ibisagent.segmenters.click_planes import ClickPlanes
from ibisagent.segmenters.clicknet import MAX_CLICKS, SIZE, ClickNet, image_planes, letterbox, normalise, prompt_planes
from ibisagent.segmenters.clicknet_cpu import CpuClickNet
from ibisagent.segmenters.litemedsam_net import WEIGHTS_DIR, LiteMedSam, letterbox_frame, read_weights
from ibisagent.segmenters.preprocess import Frame
from ibisagent.segmenters.pretrained import pick_device
from ibisagent.segmenters.prompting import check_prompt
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt

__all__ = [
    "CLICKNET_DIR",
    "WEIGHTS_DIR",
    "LiteMedSam",
    "LiteMedSamEmbedding",
    "LiteMedSamSegmenter",
    "load_clicknet",
    "make",
]

CLICKNET_DIR = WEIGHTS_DIR.parent / "clicknet"
"""Folder of ``clicknet.safetensors`` and ``config.json``, inside the package."""

_ANSWERS_BEFORE_PREPARING = 32
"""Preparing the network costs about what it saves on sixty answers: not worth it for a target or two."""


def load_clicknet(folder: Path = CLICKNET_DIR) -> ClickNet:
    """Load ClickNet from ``clicknet.safetensors`` and ``config.json`` (``{"widths": [...]}``).

    Raises
    ------
    InputError
        If the files are missing, damaged, or do not fit together.
    """
    try:
        widths = tuple(int(w) for w in json.loads((folder / "config.json").read_text(encoding="utf-8"))["widths"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {folder / 'config.json'}: {error}") from None
    net = ClickNet(widths)
    stored = read_weights(folder / "clicknet.safetensors")
    state = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{folder} does not hold ClickNet's weights: {str(error).splitlines()[0]}") from None
    return net


def _file_hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise InputError(f"cannot read weights from {path}: {error}") from None


def _state_hash(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)  # numpy has no bfloat16
        digest.update(name.encode() + raw.numpy().tobytes())
    return digest.hexdigest()


@dataclass(eq=False)
class LiteMedSamEmbedding:
    """An encoded image: ClickNet's planes now, LiteMedSAM's embedding once a box asks for it.

    Parameters
    ----------
    frame
        How the image lies in the 256 square.
    square
        ``uint8`` (256, 256, 3) letterboxed pixels.
    planes
        ``float32`` (1, 7, 256, 256), see :func:`ibisagent.segmenters.clicknet.image_planes`.
    features
        ``float32`` (1, 256, 64, 64), or None until a box arrives.
    said
        Planes of the clicks so far, or None until a click arrives.
    """

    frame: Frame
    square: NDArray[np.uint8]
    planes: Tensor
    features: Tensor | None = None
    said: ClickPlanes | None = field(default=None, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class LiteMedSamSegmenter:
    """LiteMedSAM and ClickNet behind the segmenter protocol.

    Which network answers:

    - a box and nothing else: LiteMedSAM (then refined by ClickNet if ``refine_boxes``);
    - anything with clicks or a prior: ClickNet, which sees all clicks, the box and a prior: the former
      logits, else the given mask, else LiteMedSAM's answer to the box, else none.

    On a CPU every prompt is answered by itself, so that a batch gives bit for bit what single
    prompts give, and a replay of an episode gives the same masks.

    Parameters
    ----------
    clicknet
        The click network; None loads the one that ships with the package.
    litemedsam
        The box network; None loads the one that ships with the package, when the first box arrives.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``.
    refine_boxes
        Whether ClickNet refines LiteMedSAM's answer to a box alone. Off, because that was worse with the weights
        of the package: mean IoU over mini's train targets 0.563 against 0.595 (true boxes, n = 47).
    batch_size
        Most prompts answered at once on an accelerator.

    Raises
    ------
    InputError
        If weights or the device are missing.
    """

    name = "litemedsam"
    capabilities = Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)

    def __init__(
        self,
        clicknet: ClickNet | None = None,
        litemedsam: LiteMedSam | None = None,
        *,
        device: str = "cpu",
        refine_boxes: bool = False,
        batch_size: int = 16,
    ) -> None:
        self._device = pick_device(device)
        net = load_clicknet() if clicknet is None else clicknet
        clicks = _file_hash(CLICKNET_DIR / "clicknet.safetensors") if clicknet is None else _state_hash(clicknet)
        boxes = _file_hash(WEIGHTS_DIR / "litemedsam.safetensors") if litemedsam is None else _state_hash(litemedsam)
        self.weights_sha256: str = hashlib.sha256(f"{clicks}\n{boxes}".encode()).hexdigest()
        self.refine_boxes = refine_boxes
        self._batch_size = 1 if self._device.type == "cpu" else batch_size
        self._clicknet = net.to(self._device).eval().requires_grad_(False)
        self._clicknet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._litemedsam = None if litemedsam is None else litemedsam.to(self._device)
        self._lock = threading.Lock()
        self._cpu_clicknet: CpuClickNet | None = None
        self._num_answered = 0

    def encode(self, image: Image) -> LiteMedSamEmbedding:
        """Letterbox the image and compute ClickNet's image planes.

        Raises
        ------
        ToolError
            If that fails, for example for want of memory.
        """
        frame = letterbox_frame(image.height, image.width)
        try:
            square, _ = letterbox(image.pixels)
            rgb = torch.from_numpy(normalise(square, frame.inner_height, frame.inner_width)).permute(2, 0, 1)
            with torch.inference_mode():
                return LiteMedSamEmbedding(frame, square, image_planes(rgb[None].contiguous().to(self._device)))
        except Exception as error:
            raise ToolError(f"{self.name}: encoding failed: {_one_line(error)}") from error

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Answer a batch of prompts on one image, in order.

        Raises
        ------
        ToolError
            If a prompt is not legal (no click and no box, something outside the image, a prior of the wrong form
            or not finite) or a network fails.
        """
        if not isinstance(embedding, LiteMedSamEmbedding):
            raise ToolError(f"{self.name}: not an embedding of this segmenter: {type(embedding).__name__}")
        for prompt in prompts:
            self._check(prompt, embedding.frame)
        out: list[Prediction] = []
        try:
            with torch.inference_mode():
                for start in range(0, len(prompts), self._batch_size):
                    out += self._answer(embedding, prompts[start : start + self._batch_size])
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"{self.name}: prediction failed: {_one_line(error)}") from error
        return out

    def _check(self, prompt: Prompt, frame: Frame) -> None:
        try:
            check_prompt(prompt, self.capabilities, frame.height, frame.width)
        except ToolError as error:
            raise ToolError(f"{self.name}: {error}") from None
        prior = prompt.prior_logits
        if prior is None:
            return
        if prior.shape != (SIZE, SIZE) or prior.dtype != np.float32 or not np.isfinite(prior).all():
            raise ToolError(
                f"{self.name}: prior logits must be finite float32 {(SIZE, SIZE)} as a prediction gave them, "
                f"not {prior.dtype} {prior.shape}"
            )

    def _answer(self, embedding: LiteMedSamEmbedding, prompts: Sequence[Prompt]) -> list[Prediction]:
        count = len(prompts)
        logits = torch.zeros(count, SIZE, SIZE, device=self._device)
        scores = torch.zeros(count, device=self._device)
        prior = torch.zeros(count, 1, SIZE, SIZE)
        for i, prompt in enumerate(prompts):
            if prompt.prior_logits is not None:
                prior[i, 0] = torch.tensor(prompt.prior_logits).sigmoid()
            elif prompt.prior_mask is not None:
                prior[i, 0] = torch.from_numpy(letterbox(prompt.prior_mask.astype(np.float32))[0])
        prior = prior.to(self._device)
        fresh = [
            i for i, p in enumerate(prompts) if p.box is not None and p.prior_logits is None and p.prior_mask is None
        ]
        if fresh:
            logits[fresh], scores[fresh] = self._box_answers(embedding, [prompts[i] for i in fresh])
            prior[fresh] = logits[fresh, None].sigmoid()
        alone = {i for i in fresh if not prompts[i].clicks and not self.refine_boxes}
        rest = [i for i in range(count) if i not in alone]
        if rest:
            frame = embedding.frame
            # What lies outside the image is outside every mask.
            prior[..., frame.inner_height :, :] = 0
            prior[..., frame.inner_width :] = 0
            logits[rest], scores[rest] = self._click_answers(embedding, [prompts[i] for i in rest], prior[rest])
        return self._predictions(embedding.frame, logits, scores)

    def _box_answers(self, embedding: LiteMedSamEmbedding, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        with self._lock:  # servers call from several threads; load once
            if self._litemedsam is None:
                self._litemedsam = LiteMedSam.load(device=self._device)
        with embedding.lock:
            if embedding.features is None:
                embedding.features = self._litemedsam.embed_square(embedding.square, embedding.frame)
        corners = [_box_corners(p.box, embedding.frame) for p in prompts if p.box is not None]
        boxes = torch.tensor(corners, dtype=torch.float32, device=self._device)
        logits, iou = self._litemedsam.box_logits(embedding.features, boxes)
        return logits, iou.clamp(0.0, 1.0)

    def _click_answers(
        self, embedding: LiteMedSamEmbedding, prompts: Sequence[Prompt], prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, device = len(prompts), self._device
        box = torch.zeros(n, 1, SIZE, SIZE)
        for i, prompt in enumerate(prompts):
            if prompt.box is not None:
                top, bottom, left, right = _box_cells(prompt.box, embedding.frame)
                box[i, 0, top:bottom, left:right] = 1
        positive, num_positive = _click_tensor([p.clicks for p in prompts], embedding.frame, positive=True)
        negative, num_negative = _click_tensor([p.clicks for p in prompts], embedding.frame, positive=False)
        planes = embedding.planes.expand(n, -1, -1, -1)
        if n == 1:
            kept = embedding.said = embedding.said or ClickPlanes(embedding.planes)
            yes, no = positive[0, : int(num_positive)].to(device), negative[0, : int(num_negative)].to(device)
            said = kept.prompts(yes, no, prior, box.to(device))
        else:
            said = prompt_planes(
                planes, positive.to(device), num_positive.to(device), negative.to(device), num_negative.to(device),
                prior, box.to(device),
            )  # fmt: skip
        logits, quality = self._network(n)(planes, said)
        return logits[:, 0], quality.sigmoid()

    def _network(self, count: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """ClickNet, or what gives its bits sooner once it has paid to prepare that."""
        if count != 1 or self._device.type != "cpu":
            return self._clicknet
        self._num_answered += 1
        if self._cpu_clicknet is None:
            if self._num_answered <= _ANSWERS_BEFORE_PREPARING:
                return self._clicknet
            with self._lock:
                if self._cpu_clicknet is None:
                    self._cpu_clicknet = CpuClickNet(self._clicknet)
        ready = self._cpu_clicknet
        return ready if ready.exact and ready.num_threads == torch.get_num_threads() else self._clicknet

    def _predictions(self, frame: Frame, logits: Tensor, scores: Tensor) -> list[Prediction]:
        if not (torch.isfinite(logits).all() and torch.isfinite(scores).all()):
            raise ToolError(f"{self.name}: the network returned a value that is not a number")
        out = []
        for low, score in zip(logits, scores.tolist(), strict=True):
            full = frame.to_image(low[None])[0]
            out.append(
                Prediction(
                    mask=(full > 0).cpu().numpy(),
                    score=score,
                    state=low.cpu().numpy().copy(),
                    probability=full.sigmoid().cpu().numpy(),
                )
            )
        return out


def _box_corners(box: PixelBox, frame: Frame) -> list[float]:
    """Centres of the first and last cells of the square that a box covers: x0, y0, x1, y1.

    A pixel grows to several cells where the image is enlarged; its centre would cut them in half.
    """
    sx, sy = frame.inner_width / frame.width, frame.inner_height / frame.height
    return [box.x0 * sx, box.y0 * sy, (box.x1 + 1) * sx - 1, (box.y1 + 1) * sy - 1]


def _box_cells(box: PixelBox, frame: Frame) -> tuple[int, int, int, int]:
    """Rows and columns of the square that a box touches: top, bottom, left, right, ends excluded."""
    sx, sy = frame.inner_width / frame.width, frame.inner_height / frame.height
    left, top = int(box.x0 * sx), int(box.y0 * sy)
    right, bottom = int(np.ceil((box.x1 + 1) * sx)), int(np.ceil((box.y1 + 1) * sy))
    return top, min(bottom, frame.inner_height), left, min(right, frame.inner_width)


def _click_tensor(clicks: Sequence[Sequence[PixelClick]], frame: Frame, *, positive: bool) -> tuple[Tensor, Tensor]:
    """Clicks of one sign on the square: (n, K, 2) and their numbers (n,); the newest MAX_CLICKS of each list."""
    lists = [[frame.to_input(c.x, c.y) for c in group if c.positive == positive][-MAX_CLICKS:] for group in clicks]
    points = torch.zeros(len(lists), max(1, *map(len, lists)), 2)
    for i, item in enumerate(lists):
        if item:
            points[i, : len(item)] = torch.tensor(item)
    return points, torch.tensor([len(item) for item in lists])


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def make(arg: str = "", device: str = "cpu") -> LiteMedSamSegmenter:
    """Build the default segmenter from the weights in the package; ``arg`` must be empty.

    Raises
    ------
    InputError
        If an argument is given, or weights or the device are missing.
    """
    if arg:
        raise InputError(f"litemedsam takes no argument, not {arg!r}: its weights come with the package")
    return LiteMedSamSegmenter(device=device)
