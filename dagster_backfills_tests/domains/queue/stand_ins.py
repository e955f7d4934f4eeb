"""Local fakes of Mux and of an OpenAI-compatible API: the endpoints that are used, with realistic answers."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn(ThreadingHTTPServer):
    """A server that records its requests. `failures`: status codes to return first."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str]] = []
        self.failures: list[int] = []


@contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self) -> bytes | None:
        """The body; None where the request was answered with a failure already."""
        body = self._body()
        self.server.asked.append((self.command, self.path))
        if self.server.failures:
            message = "You have no access"
            self._json(
                self.server.failures.pop(0),
                {"error": {"type": "refused", "messages": [message], "message": message}},
            )
            return None
        return body


class Mux(_Handler):
    """Direct uploads and assets. An asset becomes ready at the second request after its file was uploaded."""

    def do_POST(self):
        if (body := self._begin()) is None:
            return
        expected = base64.b64encode(b"the-id:the-secret-token").decode()
        if self.headers["Authorization"] != f"Basic {expected}":
            self._json(401, {"error": {"type": "unauthorized", "messages": ["Unauthorized request"]}})
            return
        assert self.path == "/video/v1/uploads"
        settings = json.loads(body)["new_asset_settings"]
        assert settings["playback_policies"] == ["public"]
        self._json(201, {"data": self._upload("waiting")})

    def do_PUT(self):
        if (body := self._begin()) is None:
            return
        self.server.film = body
        self.server.looks = 0
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        if self._begin() is None:
            return
        film = getattr(self.server, "film", None)
        if self.path == "/video/v1/uploads/up1":
            created = {"asset_id": "asset1"} if film is not None else {}
            self._json(
                200, {"data": {**self._upload("asset_created" if film is not None else "waiting"), **created}}
            )
            return
        assert self.path == "/video/v1/assets/asset1"
        self.server.looks += 1
        asset = {"id": "asset1", "status": "preparing", "playback_ids": [{"id": "play1", "policy": "public"}]}
        if film == b"not a film":
            asset |= {
                "status": "errored",
                "errors": {"type": "invalid_input", "messages": ["The input is no film."]},
            }
        elif self.server.looks > 2:
            asset |= {"status": "ready", "duration": 3.0}
        self._json(200, {"data": asset})

    def _upload(self, status: str) -> dict[str, Any]:
        return {"id": "up1", "url": f"{self.server.url}/put/up1", "timeout": 3600, "status": status}


class OpenAI(_Handler):
    """Transcriptions and chat completions; returns the items of `answers` in order.

    A recording is judged as OpenAI does it: by its size, and by the ending of its name.
    """

    def do_POST(self):
        if (body := self._begin()) is None:
            return
        if self.headers["Authorization"] != "Bearer sk-the-test-key":
            self._json(
                401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}}
            )
            return
        self.server.bodies.append(body)
        if self.path == "/v1/audio/transcriptions":
            self._transcribe(body)
            return
        answer = self.server.answers.pop(0)
        assert self.path == "/v1/chat/completions"
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._json(
            200,
            {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]},
        )

    def _transcribe(self, body: bytes) -> None:
        named = re.search(rb'filename="([^"]*)"', body[:4096])
        ending = named[1].decode().rpartition(".")[2].lower() if named and b"." in named[1] else ""
        if len(body) > 25 * 1024 * 1024:
            self._refuse(413, "Maximum content size limit (26214400) exceeded")
        elif ending not in ("flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"):
            self._refuse(400, f"Unrecognized file format: {ending!r}")
        else:
            self._json(200, self.server.answers.pop(0))

    def _refuse(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "invalid_request_error"}})
