"""The method, equations 1 to 9: layers, experts, routers, the multimodal prompt, losses."""
