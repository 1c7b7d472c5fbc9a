"""vLLM's own server over HTTP: what it says of itself, and replies to tokens and pictures.

Of its interface (vLLM 0.30 and 0.31) this uses ``/health``, ``/v1/models``, ``/server_info``, ``/weight_info`` and
``/update_weight_version``, ``/reset_encoder_cache``, and for replies ``/inference/v1/generate``: token ids and bare
pictures in, token ids and their log-probabilities out. That takes one place for a picture, which the server widens by
its own rule; it tells the ids that it then had, which the caller must compare with its own.

trl's client is not used for replies: it gives all prompts of a call one seed, ships every picture of every turn as
processed numbers (about ten times a PNG), and does not ask the server for the ids. It is used for the weights
(:mod:`~ibisagent.train.rl.vllm_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.conversation import one_line

__all__ = ["Drawn", "VllmServer", "refusals"]

_START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs "
    """--weight-transfer-config '{"backend": "nccl"}'"""
)
_UNKNOWN = -9000.0
"""vLLM writes -9999 where it knows no log-probability: no number that JSON could not hold."""


@dataclass(frozen=True)
class Drawn:
    """What the server says of one reply.

    Parameters
    ----------
    prompt_ids
        Ids that it drew after, pictures as it widened them.
    ids
        Of the reply, the one that ended it included.
    log_probs
        Of each id; NaN where the server does not know.
    """

    prompt_ids: list[int]
    ids: list[int]
    log_probs: list[float]


class VllmServer:
    """A running ``vllm serve``.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:8000``.
    timeout_s
        Of one request. One that got no answer is sent again: with its seed, it draws the same.
    retries
        How often; also where the connection fails, or a proxy answers 502, 503 or 504.
    at_once
        Most requests under way.

    Attributes
    ----------
    model
        The name under which it serves its model, after :meth:`wait`.
    """

    def __init__(self, url: str, *, timeout_s: float = 600.0, retries: int = 3, at_once: int = 32) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        self.url, self.timeout_s, self.at_once = url.rstrip("/"), timeout_s, at_once
        self.model = ""
        again = Retry(
            total=retries, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=None,
            raise_on_status=False,
        )  # fmt: skip
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the network's has no business between them
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again, pool_maxsize=at_once))

    # -- what it is --------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Wait until it is up.

        Raises
        ------
        InputError
            If it is not, after so many seconds.
        """
        import time

        import requests

        once = requests.Session()  # without retries
        once.trust_env = False
        until = time.monotonic() + seconds
        while True:
            try:
                if once.get(f"{self.url}/health", timeout=min(10.0, self.timeout_s)).status_code == 200:
                    break
            except requests.exceptions.InvalidURL as error:
                raise InputError(f"'{self.url}' is no server's address: {one_line(error)}") from None
            except requests.exceptions.RequestException:
                pass
            if time.monotonic() >= until:
                raise InputError(f"no vLLM server answers at {self.url} after {seconds:g} s; start one: {_START}")
            time.sleep(min(2.0, max(0.05, seconds / 20)))
        self.model = str(self._ask("GET", "/v1/models")["data"][0]["id"])

    def check(self, max_length: int) -> dict[str, Any]:
        """Whether it serves as a training needs it.

        Parameters
        ----------
        max_length
            Most tokens of a context with its reply.

        Returns
        -------
        dict
            What of its settings decides about log-probabilities: ``model``, ``dtype``, ``logprobs_mode``,
            ``max_model_len``.

        Raises
        ------
        InputError
            If it does not; the line says which option is missing.
        """
        try:
            config = self._ask("GET", "/server_info", params={"config_format": "json"})["vllm_config"]
            self.weight_version()
        except PolicyError as error:
            raise InputError(
                f"the vLLM server at {self.url} lacks the development endpoints of vLLM 0.30 or 0.31 "
                f"({one_line(error)}); start it so: {_START}"
            ) from None
        if config.get("weight_transfer_config") is None:
            raise InputError(f"the vLLM server at {self.url} takes no weights; start it so: {_START}")
        model = config.get("model_config") or {}
        mode = model.get("logprobs_mode")
        if mode != "processed_logprobs":
            raise InputError(
                f"the vLLM server at {self.url} gives {mode}, not the probabilities that it draws from; start it with "
                "--logprobs-mode processed_logprobs"
            )
        room = model.get("max_model_len")
        if room is not None and room < max_length:
            raise InputError(
                f"the vLLM server at {self.url} holds {room} tokens, and max_context with a reply takes {max_length}; "
                f"start it with --max-model-len {max_length}, or take a smaller --max-context"
            )
        told = {name: model.get(name) for name in ("model", "dtype", "logprobs_mode", "max_model_len")}
        return {"url": self.url, **told}

    # -- weights -----------------------------------------------------------------------------

    def weight_version(self) -> str:
        """The name of the weights that it holds; a server that was started anew knows none of ours."""
        return str(self._ask("GET", "/weight_info")["weight_version"])

    def weights_are(self, version: str) -> None:
        """Name the weights that it was given, and have it forget what it computed with older ones.

        trl has it forget its keys and values. vLLM also keeps what its vision tower made of a picture, by the picture
        alone: with a tower that is trained, the next update's replies would be drawn looking through the last one's.
        """
        self._ask("POST", "/reset_encoder_cache")
        self._ask("POST", "/update_weight_version", json={"new_version": version})

    # -- replies -----------------------------------------------------------------------------

    def draw(self, ids: Sequence[int], pictures: Sequence[str], sampling: Mapping[str, Any]) -> Drawn:
        """One reply.

        Parameters
        ----------
        ids
            Token ids, one placeholder a picture.
        pictures
            Data URLs in reading order.
        sampling
            Of vLLM's ``SamplingParams``.

        Raises
        ------
        PolicyError
            If the server fails, or says too little of what it did.
        """
        body = {
            "request_id": f"ibisagent-{uuid4().hex}",
            "model": self.model,
            "token_ids": list(ids),
            "content_parts": [{"type": "image_url", "url": url} for url in pictures],
            # 2: all tokens at once; with other kinds, versions of vLLM have dropped some.
            "sampling_params": {"n": 1, "logprobs": 0, "output_kind": 2, **sampling},
            "return_token_ids": True,
        }
        answer = self._ask("POST", "/inference/v1/generate", json=body)
        try:
            choice = answer["choices"][0]
            drawn = [int(i) for i in choice["token_ids"]]
            entries = choice["logprobs"]["content"]
            named = [int(str(entry["token"]).removeprefix("token_id:")) for entry in entries]
            known = [float(entry["logprob"]) for entry in entries]
            prompt = answer["prompt_token_ids"]
            reason = choice["finish_reason"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PolicyError(f"{self._name} answers without what was asked for: {one_line(repr(error))}") from None
        if reason not in ("stop", "length"):
            raise PolicyError(f"{self._name} gave a reply up ({reason})")
        if prompt is None:
            raise PolicyError(f"{self._name} does not say which tokens it was shown; vLLM 0.30 and 0.31 do")
        if named != drawn:
            raise PolicyError(f"{self._name} gives log-probabilities of other tokens than it drew")
        return Drawn([int(i) for i in prompt], drawn, [p if p > _UNKNOWN else float("nan") for p in known])

    # -- HTTP --------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"the vLLM server at {self.url}"

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        import requests

        try:
            answer = self._session.request(method, self.url + path, timeout=self.timeout_s, **options)
        except requests.exceptions.RequestException as error:
            raise PolicyError(
                f"{self._name} is gone or too slow ({type(error).__name__} at {path}); start it again, and --resume "
                "goes on from the last checkpoint"
            ) from None
        if answer.status_code != 200:
            raise PolicyError(f"{self._name} answers {answer.status_code} at {path}: {_reason(answer)}")
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise PolicyError(f"{self._name} answers {path} with something else than JSON") from None


def refusals(error: Exception, url: str) -> PolicyError:
    """What trl's client says of a server, in one line of ours; it raises bare exceptions."""
    return PolicyError(f"the vLLM server at {url} could not be given the weights: {one_line(error)}")


def _reason(answer: Any) -> str:
    try:
        said = answer.json()
        found = said["error"]["message"] if isinstance(said.get("error"), dict) else said.get("error") or said["detail"]
    except (ValueError, KeyError, AttributeError):
        found = answer.text
    return one_line(str(found)[:300])
