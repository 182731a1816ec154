"""``eval_all.py --table words`` and ``eval.py --words``: what words and thresholds do to each method."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config
from rich import box
from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text
from tqdm import tqdm

from clearclip.analysis.word_figures import draw_word_table
from clearclip.analysis.word_scores import MeanIoU, ThresholdCounts
from clearclip.analysis.word_study import WordStudy, choose_word_sets, study_words
from clearclip.commands.table_plan import Group
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import CONFIGS, class_words, dataset_name, load_config, model_settings
from clearclip.evaluation.dataset_report import quick_check
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.results.word_tables import (
    KindScores,
    MethodStudy,
    ThresholdScores,
    WordTable,
    keep_study,
    read_studies,
    studies_path,
    words_csv,
)
from clearclip.results.workbook import update_workbook
from clearclip.text.word_sets import WordSet
from clearclip.text.words import ClassWords
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes
from clearclip.utils.printable import printable

#: Of a batch: more would not fit into any memory.
MOST_IMAGES = 1 << 20
#: Whose classes are the distractors, and of the dataset itself.
DISTRACTORS_FROM = ("ade20k", "coco_stuff164k")


@dataclass(frozen=True)
class StudyTask:
    """One dataset with one kind of weights.

    Attributes:
        cfg: the benchmark's config.
        methods: name of a row → the method.
        protocol: its name, for the title.
    """

    cfg: Config
    methods: dict[str, Method]
    protocol: str


def task_of_group(group: Group) -> StudyTask:
    """The rows of a table that share weights and dataset."""
    return StudyTask(group.cfg, {row.system: group.method(row) for row in group.rows}, group.protocol)


def task_of_config(args: Namespace) -> StudyTask:
    """What ``eval.py`` was asked for."""
    cfg = load_config(args.config, args.cfg_options, args.data_root)
    methods = {}
    for description in args.methods or cfg.model.get("methods") or [model_settings(cfg).chosen_method]:
        method = build_method(description)
        methods[method.label] = method
    return StudyTask(cfg, methods, "the config's own")


def run_word_table(tasks: Sequence[StudyTask], args: Namespace, results: Path) -> int:
    """Study all tasks; print, draw and keep each as soon as it is done.

    Returns:
        0, or 1 where the workbook could not be written.
    """
    if args.batch_size is not None and not 1 <= args.batch_size <= MOST_IMAGES:
        raise UserError(f"--batch-size must be from 1 to {MOST_IMAGES:,}, not {args.batch_size}")
    for name in ("draws", "distractors"):
        if getattr(args, name) < 0:
            raise UserError(f"--{name} must be at least 0, not {getattr(args, name)}")
    if any(scale <= 0 for scale in args.scales):
        raise UserError("--scales must be positive numbers")
    for task in tasks:
        table = run_task(task, args)
        # Kept before it is printed and drawn, and before the next one begins: a study takes hours.
        keep_study(table, results)
        print_word_table(table)
        figure = results.with_name(f"{results.stem}_words_{table.dataset}_{_file_name(table.weights)}.png")
        draw_word_table(table, figure)
        print(f"figure in {printable(figure)}")
    csv_path = write_bytes(results.with_name(f"{results.stem}_words.csv"), words_csv(read_studies(results)).encode())
    is_written = update_workbook(results, force=True)
    print(f"all scores in {printable(csv_path)}, {printable(studies_path(results))} and {printable(results)}")
    return 0 if is_written else 1


def run_task(task: StudyTask, args: Namespace) -> WordTable:
    """Study one dataset with one kind of weights, in one pass over its images."""
    for remark in quick_check(task.cfg, args.on_error):
        print(f"{dataset_name(task.cfg)}: {printable(remark)}")
    settings = model_settings(task.cfg)
    model = ClearCLIP.from_settings(replace(settings, device=choose_device(args.device or settings.device)))
    dataset = CheckedDataset(task.cfg.test_dataloader.dataset, args.limit)
    word_sets = _word_sets(task.cfg, dataset.metainfo["classes"], args)
    with tqdm(desc=dataset_name(task.cfg), unit="image", leave=False, disable=None) as progress:
        study = study_words(
            task.cfg,
            dataset,
            model,
            list(task.methods.values()),
            word_sets,
            dataset_name=dataset_name(task.cfg),
            logit_scales=args.scales,
            batch_size=args.batch_size,
            on_error=args.on_error,
            on_image=progress.update,
        )
    for path, reason in study.failures.items():
        print(f"skipped {printable(path)}: {printable(reason)}")
    return word_table(study, task, model.label)


def _word_sets(cfg: Config, dataset_classes: Sequence[str], args: Namespace) -> list[WordSet]:
    """The words that are tried for a dataset."""
    words = class_words(cfg)
    synonyms = ClassWords.read(args.synonyms_from) if args.synonyms_from else _usual_synonyms(cfg, words)
    other_dataset = args.distractors_from
    # Distractors of the dataset's own would be classes of it.
    if other_dataset is None:
        other_dataset = next(name for name in DISTRACTORS_FROM if name != dataset_name(cfg))
    other_words = class_words(load_config(CONFIGS / f"cfg_{other_dataset}.py"))
    return choose_word_sets(words, dataset_classes, synonyms, args.draws, other_words, args.distractors)


def _usual_synonyms(cfg: Config, words: ClassWords) -> ClassWords:
    """The words to draw from: a file of synonyms beside the names file, where there is one, else the names file."""
    beside = CONFIGS / f"cls_{dataset_name(cfg)}_synonyms.txt"
    return ClassWords.read(beside) if beside.is_file() else words


def word_table(study: WordStudy, task: StudyTask, weights: str) -> WordTable:
    """A study as the plain data that is kept and shown."""
    methods = [_method_study(study, name, method.label) for name, method in task.methods.items()]
    word_sets = [word_set.name for word_set in study.word_sets]
    return WordTable(study.dataset, weights, task.protocol, study.images, word_sets, methods)


def _method_study(study: WordStudy, name: str, label: str) -> MethodStudy:
    words = {word_kind: _kind_scores(study, label, word_kind) for word_kind in study.kinds}
    thresholds: list[ThresholdScores] = []
    for (method, scale), counts in study.threshold_counts.items():
        if method == label:
            thresholds.append(_threshold_scores(counts, scale, study.prob_thd))
    return MethodStudy(name, words, thresholds)


def _kind_scores(study: WordStudy, label: str, word_kind: str) -> KindScores:
    """What all sets of words of a kind are worth to a method."""
    scores: list[float] = []
    scores_of_all_classes: list[float] = []
    ranks: list[int] = []
    for word_set in study.sets_of_kind(word_kind):
        mean = study.mean_iou(label, word_set)
        scores.append(mean.occurring)
        scores_of_all_classes.append(mean.all_classes)
        ranks.append(study.rank(label, word_set))
    return KindScores(
        mean=sum(scores) / len(scores),
        lowest=min(scores),
        highest=max(scores),
        best_rank=min(ranks),
        worst_rank=max(ranks),
        all_classes=sum(scores_of_all_classes) / len(scores_of_all_classes),
    )


def _threshold_scores(counts: ThresholdCounts, scale: float, protocol_thd: float) -> ThresholdScores:
    curve: list[MeanIoU] = counts.mean_by_threshold()
    scores = [mean.occurring for mean in curve]
    # The first of equally good thresholds: it keeps more pixels.
    best = max(range(len(scores)), key=scores.__getitem__)
    at_protocol = scores[list(counts.thresholds).index(protocol_thd)]
    return ThresholdScores(
        logit_scale=scale,
        protocol_thd=protocol_thd,
        at_protocol=at_protocol,
        best_thd=float(counts.thresholds[best]),
        at_best=scores[best],
        oracle=counts.oracle().occurring,
        curve=[(float(threshold), score) for threshold, score in zip(counts.thresholds, scores, strict=True)],
    )


def print_word_table(table: WordTable) -> None:
    """Print mIoU with its rank by kind of words, and what a threshold could bring."""
    print(f"\n{printable(table.title)}")
    console_table = ConsoleTable(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    console_table.add_column("")
    for heading in (*table.kinds, "best\nprob_thd", "oracle\nper class"):
        console_table.add_column(heading, justify="right")
    for method in table.methods:
        thresholds = method.thresholds[0]
        cells = [method.words[word_kind].text for word_kind in table.kinds]
        cells += [f"{thresholds.at_best:.1f}\nat {thresholds.best_thd:g}", f"{thresholds.oracle:.1f}"]
        console_table.add_row(Text(printable(method.name)), *cells)
    Console().print(console_table)
    print(f"mIoU, %, and place among the methods, below it lowest and highest; {table.verdict}")
    print("oracle per class: an upper bound, each class with the threshold that the ground truth says is best for it")


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in text)
