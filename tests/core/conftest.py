"""Core tests import `moa_attention` by itself: torch and safetensors, no host anywhere."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "core")]
