"""From the scores of words to the labels and probabilities of pixels.

Softmax keeps the order, and the largest word's class is the largest class: labels need only an argmax over words per
pixel. The threshold compares the largest probability, 1 / sum(exp(logit - largest)), which one pass over the same tile
gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearclip.windows.score_map import ScoreMap, class_count_bound, largest_by_class
from clearclip.windows.winning_words import can_leave_out_words, winning_words


@dataclass(frozen=True)
class Readout:
    """How scores become labels and probabilities.

    The probability of a word is the softmax of ``logit_scale`` × scores over the words, that of a class the largest of
    its words' (the values of a pixel need not sum to 1 where classes have several words), and the label the class with
    the largest one.

    Attributes:
        logit_scale: factor of the scores before the softmax.
        prob_thd: pixels whose largest probability is below get label 0.
        area_thd: a class other than 0 that covers at most this share of all pixels that are not labelled 0 gets
            probability 0 everywhere, before ``prob_thd`` is compared; its pixels go to the next class (SC-CLIP, SFP).
        softmax: False takes the scores themselves in place of probabilities (LPOSS).
    """

    logit_scale: float = 50.0
    prob_thd: float = 0.0
    area_thd: float = 0.0
    softmax: bool = True

    def labels(self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor) -> Tensor:
        """The class of every pixel.

        Args:
            scores: of the image's words.
            size: height and width of the output.
            word_to_class: (words,) int64, ascending from 0.

        Returns:
            (height, width) int64
        """
        word_to_class = word_to_class.to(scores.device)
        if self.area_thd > 0:
            large = self._large_classes(scores, size, word_to_class)
            return self._labels(scores, size, word_to_class, large[word_to_class])
        return self._labels(scores, size, word_to_class, None)

    def labels_with_probability(
        self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The class of every pixel before ``prob_thd`` is compared, and what it is compared with.

        Args:
            scores, size, word_to_class: as for :meth:`labels`.

        Returns:
            (height, width) int64 and (height, width) float32: the largest probability.
        """
        word_to_class = word_to_class.to(scores.device)
        allowed_words = None
        if self.area_thd > 0:
            allowed_words = self._large_classes(scores, size, word_to_class)[word_to_class]
        labels = torch.empty(size, dtype=torch.int64, device=scores.device)
        largest = torch.empty(size, device=scores.device)
        for rows, columns, label, probability in self._label_tiles(scores, size, word_to_class, allowed_words, True):
            labels[rows, columns] = label
            largest[rows, columns] = probability
        return labels, largest

    def probabilities(self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor) -> Tensor:
        """The probability of every class, (classes, height, width) float32; arguments as for :meth:`labels`."""
        word_to_class = word_to_class.to(scores.device)
        classes = int(word_to_class[-1]) + 1
        out = torch.empty(classes, *size, device=scores.device)
        for rows, columns, parts in scores.tiles(size):
            by_word = torch.cat(list(parts))
            if self._takes_softmax(scores):
                by_word = (by_word * self.logit_scale).softmax(dim=0)
            out[:, rows, columns] = largest_by_class(by_word, word_to_class)[:classes]
        if self.area_thd > 0:
            large = self._large_classes(scores, size, word_to_class)[:classes]
            out.masked_fill_(~large[:, None, None], 0)
        return out

    def _takes_softmax(self, scores: ScoreMap) -> bool:
        return self.softmax and not scores.are_probabilities

    def _labels(
        self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor, allowed_words: Tensor | None
    ) -> Tensor:
        """Labels among some words; the others still have their share of the softmax."""
        labels = torch.empty(size, dtype=torch.int64, device=scores.device)
        has_threshold = self.prob_thd > 0
        for rows, columns, label, probability in self._label_tiles(
            scores, size, word_to_class, allowed_words, has_threshold
        ):
            if has_threshold:
                label = label.masked_fill(probability < self.prob_thd, 0)
            labels[rows, columns] = label
        return labels

    def _label_tiles(
        self,
        scores: ScoreMap,
        size: tuple[int, int],
        word_to_class: Tensor,
        allowed_words: Tensor | None,
        needs_probability: bool,
    ) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        """Tile by tile: rows and columns, the class of each pixel, and its largest probability if that is needed."""
        if allowed_words is None and not needs_probability and can_leave_out_words(scores):
            for rows, columns, word in winning_words(scores, size):
                yield rows, columns, word_to_class[word], None
            return
        softmax = self._takes_softmax(scores)
        for rows, columns, parts in scores.tiles(size):
            if allowed_words is None:
                word, score, total = largest_word(parts, self.logit_scale, softmax and needs_probability)
            else:
                word, score, total = _largest_allowed_word(torch.cat(list(parts)), self.logit_scale, allowed_words)
            probability = None
            if needs_probability:
                probability = 1 / total if softmax else score
            yield rows, columns, word_to_class[word], probability

    def _large_classes(self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor) -> Tensor:
        """Which classes cover enough of the image, (:func:`class_count_bound`,) bool; class 0 always does."""
        labels = self._labels_without_thresholds(scores, size, word_to_class).flatten()
        # PyTorch's bincount would wait for a GPU.
        pixels = torch.zeros(class_count_bound(word_to_class), dtype=torch.int64, device=labels.device)
        pixels.scatter_add_(0, labels, torch.ones_like(labels))
        large = pixels > self.area_thd * pixels[1:].sum()
        large[:1].fill_(True)  # assigning a value would copy it to a GPU
        return large

    def _labels_without_thresholds(self, scores: ScoreMap, size: tuple[int, int], word_to_class: Tensor) -> Tensor:
        return Readout(softmax=self.softmax)._labels(scores, size, word_to_class, None)


def largest_word(
    parts: Iterable[Tensor], logit_scale: float, needs_total: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The word with the largest score at each pixel.

    Args:
        parts: scores (words, rows, columns) of all words, so many at a time.
        logit_scale: factor before the softmax.
        needs_total: whether to compute the last of what is returned.

    Returns:
        The word's index, its score, and the sum over all words of exp(logit - largest logit): (rows, columns) each.
    """
    largest = word = total = None
    words_before = 0
    for scores in parts:
        largest_here, index = scores.max(dim=0)
        total_here = ((scores - largest_here) * logit_scale).exp_().sum(dim=0) if needs_total else None
        if largest is None:
            largest, word, total = largest_here, index, total_here
        else:
            if needs_total:
                top = torch.maximum(largest, largest_here)
                total = total * ((largest - top) * logit_scale).exp()
                total = total + total_here * ((largest_here - top) * logit_scale).exp()
            word = torch.where(largest_here > largest, index + words_before, word)
            largest = torch.maximum(largest, largest_here)
        words_before += len(scores)
    return word, largest, total


def _largest_allowed_word(scores: Tensor, logit_scale: float, allowed_words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same as :func:`largest_word` for all words at once, of which only the allowed ones are chosen."""
    largest, word = scores.masked_fill(~allowed_words[:, None, None], -torch.inf).max(dim=0)
    total = ((scores - largest) * logit_scale).exp_().sum(dim=0)
    return word, largest, total
