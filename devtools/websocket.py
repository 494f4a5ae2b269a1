"""The reading half of a websocket client (RFC 6455), enough to follow the progress of a server on this machine."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
from typing import Any

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Messages:
    """The JSON messages that ComfyUI sends to one client."""

    def __init__(self, port: int, client_id: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /ws?clientId={client_id} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(f"The server refused the websocket: {head[:200]!r}")

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next JSON message, or None if none came in time."""
        while True:
            frame = self._take_frame()
            if frame is None:
                if not select.select([self._socket], [], [], timeout)[0]:
                    return None
                self._receive()
                continue
            kind, payload = frame
            if kind == TEXT:
                return json.loads(payload)
            if kind == PING:
                self._send(PONG, payload)
            if kind == CLOSE:
                raise ConnectionError("The server closed the websocket.")

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("The server closed the connection.")
        self._buffer += data

    def _take_frame(self) -> tuple[int, bytes] | None:
        """One whole frame off the buffer; servers send unmasked frames, and aiohttp does not split messages."""
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1] & 127, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        if len(data) < max(start + length, start):
            return None
        self._buffer = data[start + length :]
        return data[0] & 15, data[start : start + length]

    def _send(self, kind: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([128 | kind, 128 | len(payload)]) + mask + masked)
