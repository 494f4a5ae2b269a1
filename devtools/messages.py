"""What a ComfyUI server sends to one client while prompts run."""

from __future__ import annotations

import json
from typing import Any

import websocket

TEXT = 3
"""Type of a binary message with the text of a node."""


class Messages:
    """The JSON messages of one websocket; of the binary ones only the texts of nodes are kept."""

    def __init__(self, port: int, client_id: str) -> None:
        self.texts: dict[str, str] = {}
        """The last text of each node, by its id."""
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}/ws?clientId={client_id}", timeout=30)

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next message, or None if none came in time.

        Raises:
            ConnectionError: the server closed the connection.
        """
        self._socket.settimeout(timeout)
        try:
            while isinstance(text := self._socket.recv(), bytes):
                self._keep_text(text)
        except websocket.WebSocketTimeoutException:
            return None
        except websocket.WebSocketConnectionClosedException as error:
            raise ConnectionError(str(error)) from None
        if not text:
            raise ConnectionError("The server closed the websocket.")
        return json.loads(text)

    def _keep_text(self, message: bytes) -> None:
        """Type, length of the node's id, id, text; previews have another type."""
        kind, length = (int.from_bytes(message[i : i + 4], "big") for i in (0, 4))
        if kind == TEXT:
            self.texts[message[8 : 8 + length].decode()] = message[8 + length :].decode()

    def close(self) -> None:
        self._socket.close()
