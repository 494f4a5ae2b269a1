"""Devices that `plan` knows."""

CARDS = {
    "RTX 3060": (12, 51), "RTX 4060 Ti": (16, 88), "RTX 3090": (24, 71), "RTX 4090": (24, 165), "RTX 5090": (32, 210),
    "L40S": (48, 362), "A100": (80, 312), "H100": (80, 989),
}  # fmt: skip
"""GiB, and TFLOP/s of dense bfloat16 arithmetic by the makers' data sheets."""
CPU = "cpu"
DEFAULT = "RTX 4090"
