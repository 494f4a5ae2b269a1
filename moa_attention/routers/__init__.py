"""Routers that need no training; a new one is a file here and a line below."""

from .base import ROUTERS, ConstantRouter, MaskRouter, PublishedRouter, TrainingFreeRouter, register_router
from .words import PlaceRouter, WordRouter

register_router("attention", WordRouter)
register_router("mask", MaskRouter)
register_router("constant", ConstantRouter)

__all__ = [
    "ROUTERS",
    "ConstantRouter",
    "MaskRouter",
    "PlaceRouter",
    "PublishedRouter",
    "TrainingFreeRouter",
    "WordRouter",
    "register_router",
]
