"""Other words for the same classes: what a user might have written in place of the published names.

The words are the largest lever of open-vocabulary segmentation, and nothing about the model changes with them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError

PUBLISHED, PLAIN, SYNONYMS, DISTRACTORS = "published", "plain", "synonyms", "distractors"
#: What datasets call the class of all that has no class.
BACKGROUND_CLASS = "background"


@dataclass(frozen=True)
class WordSet:
    """The words of one trial.

    Attributes:
        name: such as "published", "plain", "synonyms 1", "distractors 20".
        words: the classes that are evaluated, in label order; behind them the distractors, if any.
        evaluated_classes: how many of the classes are evaluated. A pixel that gets a distractor counts as missed.
    """

    name: str
    words: ClassWords
    evaluated_classes: int

    @property
    def kind(self) -> str:
        """The name without its number: trials of one kind are summarised together."""
        return self.name.split()[0]


def published_words(words: ClassWords) -> WordSet:
    """The names file as it is."""
    return WordSet(PUBLISHED, words, len(words))


def plain_words(words: ClassWords, dataset_classes: Sequence[str]) -> WordSet:
    """The first word of each class. A background class is "background" alone: names files list there what it may hold.

    Args:
        words: of the names file.
        dataset_classes: the dataset's own names of the classes, which say which one is the background.
    """
    plain_classes: list[tuple[str, ...]] = []
    for class_words, dataset_class in zip(words.classes, dataset_classes, strict=True):
        if dataset_class == BACKGROUND_CLASS:
            plain_classes.append((BACKGROUND_CLASS,))
        else:
            plain_classes.append(class_words[:1])
    return WordSet(PLAIN, ClassWords(tuple(plain_classes)), len(words))


def synonym_choice(words: ClassWords, seed: int) -> WordSet:
    """One word of each class, drawn with a seed: the same seed gives the same words on every machine."""
    # Python's own generator, whose choices are the same in all its versions from 3.2 on.
    generator = random.Random(seed)
    chosen_classes = tuple((generator.choice(class_words),) for class_words in words.classes)
    return WordSet(f"{SYNONYMS} {seed}", ClassWords(chosen_classes), len(words))


def with_distractors(words: ClassWords, other_words: ClassWords, count: int, seed: int) -> WordSet:
    """The published words, and classes of another dataset that none of the images is labelled with.

    Args:
        words: of the names file.
        other_words: another dataset's.
        count: how many classes to add.
        seed: of the draw.

    Raises:
        UserError: the other dataset has too few classes of which this one has no word.
    """
    taken_words = {word.lower() for word in words.words} | {BACKGROUND_CLASS}
    candidates = []
    for class_words in other_words.classes:
        # A class with any word in common is one of the dataset's own, however else it is called.
        if taken_words.isdisjoint(word.lower() for word in class_words):
            candidates.append(class_words)
    if len(candidates) < count:
        raise UserError(
            f"{count} distractors were asked for, and the other dataset has {len(candidates)} classes that are not in "
            "this one; ask for fewer, or take another dataset with --distractors-from"
        )
    distractors = random.Random(seed).sample(candidates, count)
    return WordSet(f"{DISTRACTORS} {count}", ClassWords((*words.classes, *distractors)), len(words))
