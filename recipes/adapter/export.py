"""Write the adapter of a kept state, or the mean of several: `python dev.py export config.toml --step 600 800 1000`.

Without a step, the newest state is exported. A run keeps its last two states, and those of `train.keep_every`. Where it
averages weights, the averaged ones are exported.
"""

import sys
from collections.abc import Sequence

from ...moa_attention.training.saved.state import check_same, mean_weights
from .commands import Request, read_request
from .models import load_models
from .result import write_result
from .run_files import STATE, chosen_states


def main(argv: list[str]) -> None:
    """Check, load, write."""
    request = read_request("export", argv)
    try:
        print(export_states(request, request.options.step))
    except (ValueError, OSError) as error:  # what users can mend; all other errors are faults of ours
        sys.exit(f"export: {error}")


def export_states(request: Request, steps: Sequence[int]) -> str:
    """Write the file. Returns: a sentence on it.

    Raises: RunMismatch when the settings are those of another kind of adapter.
    """
    settings = request.settings
    files = chosen_states(settings.output / STATE, steps)
    loaded, weights = load_models(settings), mean_weights(list(files.values()))
    check_same(settings.output / STATE, weights, loaded.adapter.state_dict())
    loaded.adapter.load_state_dict(weights)
    variant = "-".join(f"step{step:07}" for step in files)
    return write_result(settings, loaded.adapter, loaded.expert, None, max(files), variant)
