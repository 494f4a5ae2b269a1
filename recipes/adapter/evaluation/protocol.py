"""The cases of an evaluation: every subject in every prompt, pairs of subjects in prompts for two.

After FastComposer's protocol, which the paper follows: 40 prompts of four kinds for one subject, 21 for two, four pictures
of each, 50 steps, guidance 5, seed 42. The prompts are our own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ....moa_attention.training.data.captions import find_words
from ..settings import EvaluationSettings, SettingsError
from .people import Person

SLOT = "{}"
"""Stands in a prompt for the word of a subject."""
ACCESSORY = (
    "a portrait of a {} with a straw hat", "a {} in a long yellow raincoat", "a {} with a pair of skis over the shoulder",
    "a {} with a striped woollen scarf", "a photo of a {} in a white lab coat", "a {} with large headphones",
    "a {} in a bee-keeper's suit", "a {} with an umbrella", "a {} in a silver space suit", "a photo of a {} with a crown of leaves",
)  # fmt: skip
STYLE = (
    "a charcoal drawing of a {}", "a linocut print of a {}", "a mosaic of small tiles that shows a {}",
    "a faded tinted photograph of a {} from long ago", "a {} as a clay figure of a puppet film", "a {} on a stained glass window",
    "a quick ink sketch of a {}", "a fresco of a {} on an old wall", "a poster of a {} in three flat colours",
    "a knitted doll of a {}",
)  # fmt: skip
ACTION = (
    "a {} peeling an orange", "a {} rowing a small boat", "a {} repairing a bicycle", "a {} writing on a blackboard",
    "a {} blowing out candles", "a {} carrying a heavy box", "a {} playing the accordion", "a {} watering tomatoes",
    "a {} climbing a ladder", "a {} looking through a telescope",
)  # fmt: skip
CONTEXT = (
    "a {} at a busy railway station", "a {} in a field of lavender", "a {} inside a lighthouse", "a {} under a waterfall",
    "a {} in a greenhouse", "a {} on the deck of a ferry", "a {} at a night market", "a {} before a snowy mountain hut",
    "a {} in an empty theatre", "a {} beside a camp fire",
)  # fmt: skip
PROMPTS = (*ACCESSORY, *STYLE, *ACTION, *CONTEXT)
PAIR_PROMPTS = (
    "a {} and a {} on a see-saw", "a {} and a {} baking bread", "a {} and a {} in a canoe", "a {} and a {} playing chess",
    "a {} and a {} at a bus stop", "a {} and a {} building a sand castle", "a {} and a {} in formal dress",
    "a {} and a {} painting a fence", "a {} and a {} with party hats", "a {} and a {} reading one map",
    "a {} and a {} in a hot-air balloon", "a {} and a {} before a pyramid", "a {} and a {} shaking hands",
    "an oil painting of a {} and a {}", "a {} and a {} in a recording studio", "a pencil drawing of a {} and a {}",
    "a {} and a {} in a library", "a {} and a {} picking apples", "a {} and a {} in the rain",
    "a {} and a {} beside an old car", "a {} and a {} waving from a bridge",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationCase:
    """One picture to sample: its prompt, its subjects and the seed of its noise."""

    prompt: str
    people: tuple[Person, ...]
    seed: int

    @property
    def text(self) -> str:
        """The prompt with the subjects' words."""
        return fill_prompt(self.prompt, self.people)

    @property
    def occurrences(self) -> list[int]:
        """For each subject, which occurrence of its word in the text is its own, from 1."""
        parts = self.prompt.split(SLOT)
        upto = [fill_prompt(SLOT.join([*parts[: n + 1], ""]), self.people) for n in range(len(self.people))]
        return [len(find_words(text, (p.word,))) for text, p in zip(upto, self.people, strict=True)]


def fill_prompt(prompt: str, people: Iterable[Person]) -> str:
    """Words in the place of slots."""
    for person in people:
        prompt = prompt.replace(SLOT, person.word, 1)
    return prompt


def read_prompts(field: str, file: str, otherwise: Sequence[str], slots: int) -> tuple[str, ...]:
    """The lines of a file, or what there is without one.

    Raises: SettingsError when there is no such file, nothing in it, or a line with more or fewer places for subjects.
    """
    if not file:
        return tuple(otherwise)
    path = Path(file)
    if not path.is_file():
        raise SettingsError(
            f"evaluation.{field}: there is no file {path.resolve()}. Create it, with one prompt on each line."
        )
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise SettingsError(f"evaluation.{field}: {path.resolve()} is empty. Write one prompt on each line.")
    for line in lines:
        if line.count(SLOT) != slots:
            raise SettingsError(
                f"evaluation.{field}: '{line}' has {line.count(SLOT)} {SLOT} instead of {slots}. "
                f"Write {SLOT} where a subject's word goes."
            )
    return lines


def chosen_pairs(people: Sequence[Person], count: int | None) -> list[tuple[Person, ...]]:
    """All pairs, or so many of them, evenly spread over the list of all."""
    pairs = list(combinations(people, 2))
    count = len(pairs) if count is None else min(count, len(pairs))
    return [pairs[n * len(pairs) // count] for n in range(count)]


def all_cases(
    people: Sequence[Person], wanted: EvaluationSettings
) -> tuple[list[EvaluationCase], list[EvaluationCase]]:
    """Cases of one subject, and of two.

    Raises: SettingsError as `read_prompts`.
    """
    prompts = read_prompts("prompts", wanted.prompts, PROMPTS, 1)
    pair_prompts = read_prompts("pair_prompts", wanted.pair_prompts, PAIR_PROMPTS, 2)
    seeds = range(wanted.seed, wanted.seed + wanted.pictures)
    singles = [EvaluationCase(prompt, (person,), seed) for person in people for prompt in prompts for seed in seeds]
    pairs = chosen_pairs(people, wanted.pairs)
    return singles, [EvaluationCase(prompt, pair, seed) for pair in pairs for prompt in pair_prompts for seed in seeds]
