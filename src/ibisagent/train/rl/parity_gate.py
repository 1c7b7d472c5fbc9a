"""What must hold before a run learns from another program's replies: that it draws from the model that is trained.

Some of the run's own prompts are played through the server, whole runs with their masks and pictures, and every token
is scored by the very path that the update takes. Then the same with weights that were moved a little: a server that
takes new weights and goes on with its old ones passes the first comparison, which may well have begun with the right
ones, and fails this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.rendering.png import write_atomic
from ibisagent.train.guards import TrainingError
from ibisagent.train.rl.parity import Agreement, Figures, Limits

if TYPE_CHECKING:
    from torch import Tensor

    from ibisagent.train.rl.config import RlConfig

__all__ = ["ParityGate"]

REPORT = "parity.json"
_WORST = 8
_LARGEST = 1 << 27
"""Entries of the largest weights that are moved: a copy of them is kept meanwhile."""
_FAR = 4.0
"""Moved weights must change log-probabilities by so many times the limit, or nothing could be told from noise."""


class ParityGate:
    """Compares, writes ``OUT/parity.json``, and lets pass or ends the run.

    Parameters
    ----------
    config
        Of the run: how many runs are played, and the limits.
    told
        What the server says of itself, for the report.
    """

    def __init__(self, config: RlConfig, told: dict[str, Any]) -> None:
        self._config, self._told = config, told
        self._limits = Limits(config.parity_mean, config.parity_max, config.parity_ratio, config.parity_kl)

    def __call__(self, trainer: Any, send: Callable[[], None]) -> None:
        """Compare. All processes call this.

        Parameters
        ----------
        trainer
            Whose weights the server holds.
        send
            Sends them anew.

        Raises
        ------
        TrainingError
            If the server is not to be learnt from; nothing has been.
        """
        count = max(1, -(-self._config.parity_runs // trainer.accelerator.num_processes))
        batch, scores, keys = trainer.played_and_scored(count, "parity")
        found = _compared(trainer, batch, scores)
        report: dict[str, Any] = {
            "update": trainer.state.global_step,
            "server": self._told,
            "runs": count * trainer.accelerator.num_processes,
            "images": sum(batch["num_images"]),
            "temperature": self._config.temperature,
            "limits": self._limits.__dict__,
            "found": found.to_json() if found else None,
            "worst": _worst(trainer, batch, scores, keys),
        }
        if found is None:
            self._write(trainer, report, False)
            raise TrainingError("the vLLM server told no token's log-probability; nothing was trained")
        if found.beyond(self._limits):
            self._write(trainer, report, False)
            raise TrainingError(f"{self._fault(found)}; nothing was trained; {self._config.out / REPORT}")
        if self._config.parity_weights:
            fault = self._moved(trainer, send, batch, scores, count, report)
            if fault is not None:
                self._write(trainer, report, False)
                raise TrainingError(f"{fault}; nothing was trained; {self._config.out / REPORT}")
        self._write(trainer, report, True)

    def _fault(self, found: Figures) -> str:
        causes = "it holds other weights or another dtype, shows pictures otherwise, or formats the chat otherwise"
        if self._config.temperature != 1:
            causes += ", or tells raw log-probabilities instead of processed ones"
        return f"the vLLM server does not draw from the model that is trained: {found.said(self._limits)}; {causes}"

    def _moved(
        self,
        trainer: Any,
        send: Callable[[], None],
        batch: dict[str, Any],
        scores: Tensor,
        count: int,
        report: dict[str, Any],
    ) -> str | None:
        """What is wrong with how weights reach the server, if anything is."""
        with _moved_weights(trainer) as move:
            change = 0.0
            for _ in range(8):
                if not move():
                    report["weights"] = "not tried: no weights of this process can be moved"
                    return None
                change = _change(trainer, batch, scores, trainer.scored(batch))
                if change >= _FAR * self._limits.mean:
                    break
            else:
                report["weights"] = f"not tried: moved weights change log-probabilities by {change:.3g} only"
                return None
            send()
            again, moved, _ = trainer.played_and_scored(count, "parity of moved weights")
            found = _compared(trainer, again, moved)
        send()
        report["weights"] = {"change": change, "found": found.to_json() if found else None}
        if found is None or not found.mean < change / 2:
            return (
                "weights that are sent to the vLLM server do not take effect there: moved ones change "
                f"log-probabilities by {change:.3g}, and with them the server is "
                f"{found.mean if found else float('nan'):.3g} away"
            )
        return None

    def _write(self, trainer: Any, report: dict[str, Any], passed: bool) -> None:
        if trainer.accelerator.is_main_process:
            path = Path(self._config.out) / REPORT
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic((json.dumps({"passed": passed, **report}, indent=1) + "\n").encode(), path)


def _compared(trainer: Any, batch: dict[str, Any], scores: Tensor) -> Figures | None:
    agreement = Agreement()
    agreement.add(scores, batch["sampling_per_token_logps"], _own(batch))
    return agreement.figures(trainer.accelerator)


def _change(trainer: Any, batch: dict[str, Any], before: Tensor, after: Tensor) -> float:
    agreement = Agreement()
    agreement.add(after, before, _own(batch))
    found = agreement.figures(trainer.accelerator)
    return found.mean if found else 0.0


def _own(batch: dict[str, Any]) -> Tensor:
    return batch["completion_mask"] * batch["tool_mask"]


def _worst(trainer: Any, batch: dict[str, Any], scores: Tensor, keys: list[str]) -> list[dict[str, Any]]:
    """The tokens that differ most, of this process."""
    import torch

    drawn = batch["sampling_per_token_logps"]
    gap = torch.where(_own(batch).bool(), (scores - drawn).abs().nan_to_num(-1.0), -1.0)
    width = gap.shape[1]
    tokenizer = trainer.processing_class.tokenizer
    found = []
    for place in gap.flatten().argsort(descending=True)[:_WORST].tolist():
        row, column = divmod(place, width)
        if gap[row, column] < 0:
            break
        found.append(
            {
                "run": keys[row],
                "token": tokenizer.decode([int(batch["completion_ids"][row, column])]),
                "place": column,
                "server": round(float(drawn[row, column]), 4),
                "trainer": round(float(scores[row, column]), 4),
            }
        )
    return found


@contextmanager
def _moved_weights(trainer: Any) -> Iterator[Callable[[], bool]]:
    """Some of the weights that are learnt, to be moved by growing steps; to the last bit as they were afterwards.

    What is given adds the next step and tells whether any weight was there to move. Steps are alike on all processes
    that hold the same weights, and leave the world's random numbers alone.
    """
    import torch

    learnt = [p for p in trainer.model.parameters() if p.requires_grad and p.ndim > 1 and p.numel() <= _LARGEST]
    # The last layers change most; of an adapter, the halves that are nil at the start are every second.
    local = [p.to_local() if hasattr(p, "to_local") else p for p in learnt[-8:]]
    local = [p.data for p in local if p.numel()]
    kept = [p.clone() for p in local]
    step = 0

    def move() -> bool:
        nonlocal step
        step += 1
        for number, (weights, before) in enumerate(zip(local, kept, strict=True)):
            draw = torch.Generator(device=weights.device).manual_seed(97 * step + number)
            noise = torch.randn(weights.shape, generator=draw, device=weights.device, dtype=torch.float32)
            size = max(float(before.float().pow(2).mean().sqrt()), 0.02) * 0.1 * 2**step
            weights.copy_((before.float() + size * noise).to(weights.dtype))
        return bool(local)

    try:
        with torch.no_grad():
            yield move
    finally:
        for weights, before in zip(local, kept, strict=True):
            weights.copy_(before)
