"""A stand-in for OpenAI's service, which cannot run here: the chat-completions protocol on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = ["The ferry ", "leaves at", " nine [1]."]
"""What the server answers, piece by piece."""


class ChatServer:
    """A server that speaks OpenAI's chat completions on this machine, and notes what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chat.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
                self.send_response(200)
                if body.get("stream"):
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    for piece in ANSWER:
                        self._event(chunk(body, delta={"role": "assistant", "content": piece}))
                    self._event(chunk(body, delta={}, finish_reason="stop"))
                    self.wfile.write(b"data: [DONE]\n\n")
                else:
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    message = {"role": "assistant", "content": "".join(ANSWER)}
                    reply = chunk(body, message=message, finish_reason="stop") | {"object": "chat.completion"}
                    self.wfile.write(json.dumps(reply).encode())

            def _event(self, data: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def chunk(body: dict[str, Any], **choice: Any) -> dict[str, Any]:
    """Make one piece of a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }
