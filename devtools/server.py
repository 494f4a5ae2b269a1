"""A ComfyUI server in a process of its own, with a base folder of its own, and the few HTTP calls that we need."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from .messages import Messages

START_SECONDS = 900
"""A busy machine can take minutes to import everything."""
PACK_FOLDER = "moa-attention"

Progress = Callable[[str, int, int], None]
"""`(node id, step, steps)`"""


class ServerError(RuntimeError):
    """The server did not start, refused a prompt, or a prompt failed in it."""


class Server:
    """`with Server(host, python, base, packs=[root], cpu=True) as server: history = server.queue(prompt)`.

    Args:
        host: the ComfyUI folder; it is never written to.
        python: interpreter whose environment has the host's requirements.
        base: folder for `models/`, `input/`, `output/`, `custom_nodes/` of this server.
        packs: node pack folders to link into `custom_nodes`; the first one is named like ours.
    """

    def __init__(self, host: Path, python: Path, base: Path, packs: Sequence[Path] = (), *, cpu: bool) -> None:
        self.base, self.log, self.port = base, base / "server.log", free_port()
        self._python, self._host, self._cpu, self._packs = python, host, cpu, packs
        self._process: subprocess.Popen[bytes] | None = None
        self.client = uuid.uuid4().hex
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy for the network has no part in a loopback address

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for i, pack in enumerate(self._packs):
            link_folder(pack, self.base / "custom_nodes" / (PACK_FOLDER if i == 0 else pack.name))
        command = [
            str(self._python),
            "-u",
            str(self._host / "main.py"),
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--disable-auto-launch", *(["--cpu"] if self._cpu else [])]
        with self.log.open("wb") as log:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
            self._process = subprocess.Popen(
                command, cwd=self._host, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting (code {self._process.returncode}):\n{self.log_tail()}")
            try:
                self.get("/system_stats", timeout=5)
                return
            except OSError:
                time.sleep(0.3)
        raise ServerError(f"ComfyUI did not answer within {START_SECONDS} s:\n{self.log_tail()}")

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wait(self) -> None:
        """Until the server ends by itself or the user stops us."""
        if self._process is not None:
            self._process.wait()

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def get(self, path: str, timeout: float = 60) -> Any:
        """The JSON at a path."""
        return self._answer("GET", path, timeout).json()

    def post(self, path: str, body: Any, timeout: float = 60) -> Any:
        """Send JSON; returns the JSON that comes back, None if nothing does."""
        answer = self._answer("POST", path, timeout, json=body)
        return answer.json() if answer.content else None

    def fetch(self, path: str, timeout: float = 60) -> bytes:
        """The file at a path."""
        return self._answer("GET", path, timeout).content

    def _answer(self, method: str, path: str, timeout: float, **content: Any) -> requests.Response:
        answer = self._http.request(method, self.address + path, timeout=timeout, **content)
        answer.raise_for_status()
        return answer

    def object_info(self) -> dict[str, Any]:
        """Every node's schema by its id."""
        return self.get("/object_info")

    def submit(self, prompt: dict[str, Any]) -> str:
        """Queue an API-format prompt and return its id at once.

        Raises:
            ServerError: the server found the prompt, or one of its outputs, invalid; the text is its answer. (It runs the other
                outputs nevertheless.)
        """
        answer = self._http.post(
            f"{self.address}/prompt", json={"prompt": prompt, "client_id": self.client}, timeout=60
        )
        if not answer.ok or answer.json()["node_errors"]:
            raise ServerError(f"ComfyUI refused the prompt: {answer.text}")
        return answer.json()["prompt_id"]

    def queue(self, prompt: dict[str, Any], progress: Progress | None = None, timeout: float = 1800) -> dict[str, Any]:
        """Queue a prompt, wait until it has ended well, and return its history entry (`outputs`, `status`).

        Raises:
            ServerError: it was refused, failed, was cancelled, or took too long.
        """
        messages = Messages(self.port, self.client) if progress else None
        try:
            history = self.finished(self.submit(prompt), timeout, messages, progress)
        finally:
            if messages:
                messages.close()
        if history["status"]["status_str"] != "success":
            raise ServerError(f"The prompt failed: {failure(history)}\n{self.log_tail(15)}")
        return history

    def finished(
        self, prompt_id: str, timeout: float = 1800, messages: Messages | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Wait for the end of a prompt, good or bad, and return its history entry."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"The server has ended:\n{self.log_tail()}")
            if messages is None or progress is None:
                time.sleep(0.1)
                continue
            while message := messages.next(timeout=0.2):
                if message["type"] == "progress":
                    data = message["data"]
                    progress(str(data["node"]), int(data["value"]), int(data["max"]))
        raise ServerError(f"No result within {timeout:.0f} s:\n{self.log_tail()}")

    def interrupt(self) -> None:
        """Cancel what is running, as the button in the page does."""
        self.post("/interrupt", {})

    def running(self, prompt_id: str) -> bool:
        return any(item[1] == prompt_id for item in self.get("/queue")["queue_running"])

    def image(self, item: dict[str, str]) -> bytes:
        """The file of one `{"filename", "subfolder", "type"}` out of a history's outputs."""
        return self._answer("GET", "/view", timeout=60, params=item).content


def failure(history: dict[str, Any]) -> str:
    """The node and the message of a failed history entry."""
    for kind, data in history["status"].get("messages", []):
        if kind == "execution_error":
            return f"{data['node_type']}: {data['exception_message']}"
        if kind == "execution_interrupted":
            return "cancelled"
    return history["status"]["status_str"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link_folder(source: Path, link: Path) -> None:
    """Make `link` show `source`: a symbolic link; a junction on Windows, where links need rights."""
    if link.exists() and link.resolve() == source.resolve():
        return
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise ServerError(f"{link} exists and is not a link to {source}. Move it elsewhere.")
    if os.name != "nt":
        link.symlink_to(source.resolve(), target_is_directory=True)
    elif subprocess.run(
        ["cmd", "/c", "mklink", "/J", str(link), str(source.resolve())], capture_output=True
    ).returncode:
        shutil.copytree(source, link, ignore=shutil.ignore_patterns(".*", "__pycache__"))
