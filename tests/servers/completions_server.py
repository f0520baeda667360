"""A small OpenAI-compatible server of one checkpoint, for tests: completions, with echo, and chat.

`with served(folder) as server:` answers at `server.url`. `server.asked` holds the bodies and
headers of all requests; with `echo=False` it forgets the prompt, as some servers do.
"""

import contextlib
import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server:
    """Answers for a checkpoint."""

    def __init__(self, folder: Path, echo: bool) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.url = ""
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self._echo = echo
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        with self._lock:
            self.asked.append((body, headers))
            if path.endswith("/chat/completions"):
                turns = "".join(message["content"] for message in body["messages"])
                text = self._write(self._tokenizer.encode(turns), body)
                return {"choices": [{"index": 0, "message": {"content": text}}]}
            prompts = body["prompt"]
            prompts = prompts if isinstance(prompts[0], list) else [prompts]
            make = self._weigh if body.get("echo") else self._complete
            return {"choices": [{"index": n, **make(p, body)} for n, p in enumerate(prompts)]}

    def _complete(self, tokens: list[int], body: dict[str, Any]) -> dict[str, Any]:
        return {"text": self._write(tokens, body)}

    def _write(self, tokens: list[int], body: dict[str, Any]) -> str:
        import torch

        inputs = torch.tensor([tokens])
        written = self._model.generate(
            inputs, max_new_tokens=body["max_tokens"], do_sample=False, pad_token_id=0
        )
        text = self._tokenizer.decode(written[0, len(tokens) :], skip_special_tokens=True)
        for stop in body.get("stop") or []:
            text = text.split(stop)[0]
        return text

    def _weigh(self, tokens: list[int], body: dict[str, Any]) -> dict[str, Any]:
        import torch

        with torch.no_grad():
            table = self._model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        best, places = table.max(-1)
        own = [table[n, token].item() for n, token in enumerate(tokens[1:])]
        values = [None, *own, best[-1].item()]
        top = [None, *({str(p.item()): b.item()} for b, p in zip(best, places, strict=True))]
        if not self._echo:
            values, top = values[-1:], top[-1:]
        return {"text": "", "logprobs": {"token_logprobs": values, "top_logprobs": top}}


@contextlib.contextmanager
def served(folder: Path, echo: bool = True) -> Generator[Server]:
    """Serve a checkpoint on a free port until the end of the block."""
    server = Server(folder, echo)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(server.answer(self.path, body, dict(self.headers))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
