"""The options of a study of words, for ``eval_all.py --table words`` and ``eval.py --words``."""

from __future__ import annotations

from argparse import ArgumentParser

#: The name of the study among the tables.
WORDS_TABLE = "words"
WORDS_HELP = "each method with the published, plain and synonymous words, with distractors, and under every threshold"


def add_word_flags(parser: ArgumentParser) -> None:
    """Add what says which words are tried."""
    group = parser.add_argument_group("words", "which words and scales a study of words tries")
    add = group.add_argument
    add("--draws", type=int, default=5, metavar="N", help="draws of synonyms, with seeds 1 to N (default %(default)s)")
    add("--synonyms-from", metavar="FILE", help="a names file to draw synonyms from (default: the dataset's own)")
    add(
        "--distractors",
        type=int,
        default=20,
        metavar="N",
        help="classes of another dataset to add (default 20)",
    )
    add("--distractors-from", metavar="DATASET", help="whose classes (default: ade20k, or coco_stuff164k for it)")
    scales = "further logit scales under which the thresholds are studied"
    add("--scales", type=float, nargs="+", default=[], metavar="X", help=scales)
