"""From a config to a result: dataset → segmentor → confusion counts → scores."""

from clearclip.evaluation.checked import CheckedDataset
from clearclip.evaluation.loop import EvaluationLoop, Replica
from clearclip.evaluation.metric import ConfusionMetric, Scores
from clearclip.evaluation.run import Evaluation, evaluate

__all__ = ["CheckedDataset", "ConfusionMetric", "Evaluation", "EvaluationLoop", "Replica", "Scores", "evaluate"]
