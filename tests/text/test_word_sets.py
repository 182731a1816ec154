"""Other words for the same classes."""

from __future__ import annotations

import pytest

from clearclip.text.word_sets import plain_words, published_words, synonym_choice, with_distractors
from clearclip.text.words import ClassWords
from clearclip.utils.errors import UserError

WORDS = ClassWords((("sky", "wall", "tree"), ("person", "man", "woman"), ("cat",)))
DATASET_CLASSES = ["background", "person", "cat"]


def test_published_words_are_the_names_file():
    word_set = published_words(WORDS)
    assert word_set.words == WORDS
    assert word_set.evaluated_classes == 3


def test_plain_words_are_the_first_and_background_alone():
    assert plain_words(WORDS, DATASET_CLASSES).words.classes == (("background",), ("person",), ("cat",))
    # Without a class called background, the first word stands for the first class, too.
    assert plain_words(WORDS, ["sky", "person", "cat"]).words.classes[0] == ("sky",)


def test_synonyms_are_drawn_with_the_seed_and_every_word_can_be_drawn():
    drawn = set()
    for seed in range(1, 40):
        word_set = synonym_choice(WORDS, seed)
        assert word_set.words == synonym_choice(WORDS, seed).words
        for chosen, words in zip(word_set.words.classes, WORDS.classes, strict=True):
            assert len(chosen) == 1
            assert chosen[0] in words
        drawn.update(word_set.words.words)
    assert drawn == set(WORDS.words)


def test_distractors_are_never_a_class_of_the_dataset():
    other = ClassWords((("Sky",), ("dog", "cat"), ("background",), ("lamp",), ("bed",), ("door",)))
    word_set = with_distractors(WORDS, other, 3, seed=1)
    assert word_set.words.classes[:3] == WORDS.classes
    assert set(word_set.words.classes[3:]) == {("lamp",), ("bed",), ("door",)}
    assert word_set.evaluated_classes == 3
    with pytest.raises(UserError, match="4 distractors were asked for, and the other dataset has 3"):
        with_distractors(WORDS, other, 4, seed=1)
