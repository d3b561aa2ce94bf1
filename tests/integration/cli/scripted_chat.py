"""A chat server whose answers follow a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.chat_server import chunk


class ScriptedChatServer:
    """A server that speaks OpenAI's chat completions on this machine and answers by a script.

    Args:
        script: Gives the HTTP status and the answer for a prompt.
    """

    def __init__(self, script: Callable[[str], tuple[int, str]]) -> None:
        self.requests: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append({"key": self.headers["Authorization"], **body})
                status, answer = script(body["messages"][0]["content"])
                message = {"role": "assistant", "content": answer}
                reply = chunk(body, message=message, finish_reason="stop") | {"object": "chat.completion"}
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(reply if status == 200 else {"error": {"message": answer}}).encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Keep standard error empty."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ask_for_first_words(prompt: str) -> tuple[int, str]:
    """Ask what the passage says of its first two words."""
    passage = prompt.split("Passage:\n")[1]
    return 200, f"What about {' '.join(passage.split()[:2])}?\n"
