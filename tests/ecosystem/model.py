"""A stand-in for the model behind Claude Code: it keeps what it is asked, and answers what the test has written.

It speaks as much of the Messages API as the client needs: POST /v1/messages, streamed.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web

Block = dict[str, Any]


def text(said: str) -> Block:
    """An answer in words, which ends the turn."""
    return {"type": "text", "text": said}


def tool(name: str, **arguments: Any) -> Block:
    """A call of a tool."""
    return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": name, "input": arguments}


class Model:
    """What the main conversation asked, in order, as JSON; `url` is where it is asked."""

    def __init__(self, answers: Iterable[Block]) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._answers = iter(answers)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *answers: Block) -> AsyncIterator[Model]:
        """Gives these answers, one after the other."""
        model = cls(answers)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/messages", model._messages)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield model
        finally:
            await runner.cleanup()

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        main = bool(asked.get("tools"))  # what it asks on the side, for a title, has none
        if main:
            self.asked.append(json.dumps(asked["messages"]))
        block = next(self._answers, text("There is no more.")) if main else text("A title")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in _events(block, str(asked["model"])):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response


def _events(block: Block, model: str) -> list[Block]:
    """One answer as the events of a stream."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "usage": usage,
    }
    if block["type"] == "text":
        begun, delta = text(""), {"type": "text_delta", "text": block["text"]}
    else:
        begun = block | {"input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    reason = "tool_use" if block["type"] == "tool_use" else "end_turn"
    return [
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
