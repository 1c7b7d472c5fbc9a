"""A server that speaks as ``vllm serve`` 0.31 does, as far as our training talks to it, with transformers' model.

Paths, fields and their meanings are those of vLLM's source (``entrypoints/scale_out``, ``entrypoints/serve/dev``,
``sampling_params.py``): one placeholder a picture comes in and is widened; token ids and log-probabilities go out as
``token_id:N``; weights are announced over HTTP and arrive on another way. That way is NCCL with vLLM; here it is a
queue, and :func:`install` puts it in the place of vLLM's engine below trl's own client.
"""

from __future__ import annotations

import base64
import io
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

__all__ = ["StandInVllm", "install"]


class StandInVllm:
    """A model behind vLLM's paths on 127.0.0.1.

    Parameters
    ----------
    model, processor
        What it serves; the model's weights change as they are sent.

    Attributes
    ----------
    requests
        (path, JSON) of every request, in order.
    config
        What ``/server_info`` says.
    raw
        Whether it tells log-probabilities before the temperature, whatever its configuration says.
    deaf
        Whether it takes weights and goes on with its own.
    lose
        Pictures of every request that it drops.
    pad
        Ids that it puts before every prompt.
    echo
        Whether it tells the ids that it drew after.
    dead
        Whether it hangs up instead of answering.
    sick
        Statuses that the next requests for replies get.
    weight_version
        "default" after a start.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        from ibisagent.train.tokens import Renderer

        self.model, self.renderer = model.eval(), Renderer(processor)
        self.requests: list[tuple[str, Any]] = []
        self.config: dict[str, Any] = {
            "model_config": {
                "model": "tiny", "dtype": "torch.float32", "logprobs_mode": "processed_logprobs", "max_model_len": 8192
            },
            "weight_transfer_config": {"backend": "nccl"},
        }  # fmt: skip
        self.raw = self.deaf = self.dead = False
        self.lose, self.pad, self.echo = 0, [], True
        self.sick: list[int] = []
        self.weight_version = "default"
        self.sent: queue.Queue[list[tuple[str, Any]]] = queue.Queue()
        self.updating = False
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._say(json.loads(body) if body else None)

            def _say(self, body: Any) -> None:
                path = self.path.partition("?")[0]
                outer.requests.append((path, body))
                try:
                    with outer._lock:
                        status, answer = outer.answer(path, body)
                except Exception as error:
                    status, answer = 500, {"error": {"message": repr(error)}}
                if outer.dead:
                    self.close_connection = True
                    return
                data = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self, path: str) -> list[Any]:
        """Bodies of the requests to a path."""
        return [body for found, body in self.requests if found == path]

    # -- answers -----------------------------------------------------------------------------

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": "tiny"}]}
        if path == "/server_info":
            return 200, {"vllm_config": self.config, "vllm_env": {}, "system_env": {}}
        if path == "/get_world_size":
            return 200, {"world_size": 1}
        if path == "/weight_info":
            return 200, {"weight_version": self.weight_version}
        if path == "/update_weight_version":
            self.weight_version = body["new_version"]
            return 200, {"success": True, "new_version": self.weight_version}
        if path in ("/health", "/reset_prefix_cache", "/reset_encoder_cache"):
            return 200, None
        if path == "/init_weight_transfer_engine":
            assert set(body["init_info"]) >= {"master_address", "master_port", "rank_offset", "world_size"}
            return 200, {"message": "Weight transfer initialized"}
        if path == "/start_weight_update":
            assert not self.updating
            self.updating = True
            return 200, {"message": "Weight update started"}
        if path == "/update_weights":
            self._take(body["update_info"])
            return 200, {"message": "Weights updated"}
        if path == "/finish_weight_update":
            assert self.updating
            self.updating = False
            return 200, {"message": "Weight update finished"}
        if path == "/inference/v1/generate":
            if self.sick:
                return self.sick.pop(0), {"error": {"message": "not today", "type": "x", "code": 500}}
            return self._generate(body)
        return 404, {"detail": "Not Found"}

    def _take(self, info: dict[str, Any]) -> None:
        import torch

        assert self.updating and info["packed"] is True
        arrived = self.sent.get(timeout=10)
        assert [name for name, _ in arrived] == info["names"]
        assert [list(value.shape) for _, value in arrived] == info["shapes"]
        assert [str(value.dtype).removeprefix("torch.") for _, value in arrived] == info["dtype_names"]
        own = dict(self.model.named_parameters())
        assert set(info["names"]) == set(own)
        if not self.deaf:
            with torch.no_grad():
                for name, value in arrived:
                    own[name].copy_(value)

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        import torch
        from PIL import Image as pil
        from transformers import GenerationConfig, LogitsProcessorList

        renderer, wanted = self.renderer, body["sampling_params"]
        assert body["model"] == "tiny" and wanted["n"] == 1 and wanted["logprobs"] == 0 and wanted["ignore_eos"]
        assert wanted["top_p"] == 1 and wanted["top_k"] == 0 and wanted["min_p"] == 0
        assert wanted["repetition_penalty"] == 1
        pictures = []
        for part in body["content_parts"]:
            head, _, data = part["url"].partition(",")
            assert part["type"] == "image_url" and head == "data:image/png;base64"
            pictures.append(np.asarray(pil.open(io.BytesIO(base64.b64decode(data))).convert("RGB")))
        pictures = pictures[: len(pictures) - self.lose]
        if (places := body["token_ids"].count(renderer.image_id)) != len(pictures) + self.lose:
            return 400, {"error": {"message": f"{places} placeholders, {len(pictures)} images", "code": 400}}
        lengths = iter([*renderer.image_lengths(pictures), *[0] * self.lose])
        prompt = [*self.pad]
        for token in body["token_ids"]:
            prompt += [token] * next(lengths) if token == renderer.image_id else [token]
        inputs = renderer.tensors([prompt], [pictures])
        stops = wanted["stop_token_ids"]
        config = GenerationConfig(
            max_new_tokens=wanted["max_tokens"], do_sample=False, eos_token_id=stops, pad_token_id=renderer.pad_id
        )
        draw = torch.Generator().manual_seed(wanted["seed"])

        def noise(ids: Any, scores: Any) -> Any:
            drawn = torch.empty_like(scores).exponential_(generator=draw).log().neg()
            return scores / wanted["temperature"] + drawn

        with torch.no_grad():
            out = self.model.generate(
                **inputs, generation_config=config, logits_processor=LogitsProcessorList([noise]),
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        ids = out.sequences[0, len(prompt) :].tolist()
        content = []
        for token, logits in zip(ids, out.logits, strict=True):
            scaled = logits[0] if self.raw else logits[0] / wanted["temperature"]
            score = float(scaled.log_softmax(-1)[token])
            entry = {"token": f"token_id:{token}", "logprob": score}
            content.append({**entry, "top_logprobs": [entry]})
        reason = "stop" if ids[-1] in stops else "length"
        return 200, {
            "request_id": body["request_id"],
            "choices": [{"index": 0, "token_ids": ids, "finish_reason": reason, "logprobs": {"content": content}}],
            "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids)},
            "prompt_token_ids": prompt if self.echo and body["return_token_ids"] else None,
        }


def install(monkeypatch: pytest.MonkeyPatch, server: StandInVllm) -> None:
    """Let trl believe that vLLM is there, and let weights go to the stand-in's queue instead of over NCCL."""
    from trl.generation import vllm_client, vllm_generation

    class Engine:
        @staticmethod
        def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
            assert trainer_args.packed
            server.sent.put([(name, value.detach().clone()) for name, value in iterator])

    def communicator(self: Any, device: Any = 0) -> None:
        # trl's own goes on to NCCL here, and refuses a CPU.
        assert self.get_server_info()["weight_transfer_config"] is not None
        info = {"master_address": "127.0.0.1", "master_port": self.group_port, "rank_offset": 1}
        info |= {"world_size": self.get_world_size() + 1}
        self._post(f"{self.base_url}/init_weight_transfer_engine", json={"init_info": info})
        self.communicator = SimpleNamespace(group=SimpleNamespace())

    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda *args, **kwargs: True)
    monkeypatch.setattr(vllm_client, "NCCLWeightTransferEngine", Engine, raising=False)
    monkeypatch.setattr(vllm_client, "NCCLTrainerSendWeightsArgs", SimpleNamespace, raising=False)
    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", communicator)
