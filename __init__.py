"""ComfyUI-MoA: your people and things in your pictures, routed per latent pixel (arXiv 2404.11565)."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI. The nodes are imported here, so that importing the package touches neither host nor torch."""
    from .nodes import MoAExtension

    return MoAExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
