"""Text on a node in the page, by the host's own message for progress in words."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context


class NodeText:
    """The text on the node that is being executed where this is made; outside a prompt there is none.

    The page keeps a text until the next one and ignores an empty one: a node that has something to show at times shows something
    always.
    """

    def __init__(self) -> None:
        context = get_executing_context()
        self.node = None if context is None else context.node_id

    def show(self, text: str) -> None:
        """Show a text to the user whose prompt runs; the node need not be in execution any more."""
        if self.node is None:
            return
        from server import PromptServer  # here, because training and tests use the nodes without a server

        page = getattr(PromptServer, "instance", None)
        if page is not None:
            page.send_progress_text(text, self.node, page.client_id)
