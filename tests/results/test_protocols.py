"""Protocols as data: the bundled configs are the published ones, and a run that differs is told in what."""

from __future__ import annotations

import json

import pytest
from layouts import LAYOUTS, make_layout
from recorded_runs import REMOVED, facts_of, find_row

from clearclip import UserError
from clearclip.commands.table_plan import plan
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.run_facts import run_facts
from clearclip.evaluation.weight_facts import weights_facts
from clearclip.methods import build_method
from clearclip.model_settings import ModelSettings
from clearclip.results.protocols import dataset_title, find_protocol, protocol_names, protocols
from clearclip.results.table_definitions import find_table
from clearclip.utils.devices import choose_device


def test_a_protocols_options_of_methods_are_in_their_labels():
    for protocol in protocols().values():
        for row in find_table("family").rows:
            method = build_method(row.method).with_options(protocol.method_options)
            assert method.label == protocol.label(row.label)
        names = {name for row in find_table("family").rows for name in row.label.split(" + ")}
        assert set(protocol.methods) <= names


@pytest.mark.parametrize("key", protocols(), ids="-".join)
def test_the_options_of_a_protocol_are_options_of_a_model(key):
    protocol = protocols()[key]
    settings = ModelSettings.from_options(dict(protocol.model))
    for name, value in protocol.model.items():
        assert getattr(settings, name) == value
    stated = {name: value for name, value in settings.facts().items() if value is not None}
    assert stated == protocol.model, "an option that changes a result, and that the protocol does not name"


@pytest.mark.parametrize("key", protocols(), ids="-".join)
def test_a_run_with_the_settings_of_a_protocol_has_no_difference(key):
    protocol, dataset = key
    differences = protocols()[key].differences(facts_of(dataset, protocol=protocol))
    # Where no source says how many images there are, no run is known to be complete.
    expected = [] if protocols()[key].images is not None else ["images"]
    assert [difference.setting for difference in differences] == expected


def test_unknown_benchmarks_of_a_protocol_are_told():
    with pytest.raises(UserError, match=r"protocol naclip is for voc21.*not for miniature"):
        find_protocol("naclip", "miniature")
    assert protocol_names()[0] == "clearclip"
    assert dataset_title("coco_stuff164k") == "Stuff"
    assert dataset_title("my own") == "my own"


#: A change of the facts → the setting that differs, its value here, and the published one.
DEVIATIONS = [
    (dict(model__prob_thd=0.2), ("model.prob_thd", 0.2, 0.5)),
    (dict(model__slide_stride=112), ("model.slide_stride", 112, 224)),
    (dict(model__slide_crop=224), ("model.slide_crop", 224, 448)),
    (dict(model__logit_scale=40.0), ("model.logit_scale", 40.0, 50)),
    (dict(model__post="pamr"), ("model.post", "pamr", "not set")),
    (dict(model__normalization="pretrained"), ("model.normalization", "pretrained", "not set")),
    (dict(model__some_option=1), ("model.some_option", 1, "not set")),
    (dict(model__words="x"), ("words", "words of your own", "those of cls_voc21.txt")),
    (
        dict(model__words="3c3dd4f07dc0edbafc9378fbf70d114c"),
        ("words", "those of cls_voc21_naclip.txt", "those of cls_voc21.txt"),
    ),
    (dict(dataset__count=100), ("images", 100, 1449)),
    (dict(dataset__classes=20), ("dataset.classes", 20, 21)),
    (dict(dataset__ignore_index=0), ("dataset.ignore_index", 0, 255)),
    (dict(dataset__reduce_zero_label=True), ("dataset.reduce_zero_label", True, False)),
    (dict(dataset__labels="0123"), ("dataset.labels", "0123", "not set")),
    (dict(dataset__source="0123"), ("dataset.source", "0123", "not set")),
    (dict(other__hooks=["EMAHook"]), ("other.hooks", ["EMAHook"], "not set")),
    (dict(environment__precision="bf16"), ("precision", "bf16", "fp16 or fp32")),
    (dict(input__preprocessor={"type": "X"}), ("input.preprocessor", {"type": "X"}, "not set")),
]
LOAD, ANNOTATIONS, PACK = ({"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
RESIZE = {"type": "Resize", "scale": [2048, 448], "keep_ratio": True}
SMALLER = {**RESIZE, "scale": [2048, 336]}
STRETCHED = {"type": "Resize", "scale": [2048, 448]}
#: A pipeline → the setting that differs.
PIPELINES = [
    ([LOAD, SMALLER, ANNOTATIONS, PACK], ("resize", "2048x336", "2048x448")),
    ([LOAD, ANNOTATIONS, PACK], ("resize", "not set", "2048x448")),
    ([LOAD, STRETCHED, ANNOTATIONS, PACK], ("resize", '{"scale": [2048, 448]}', "2048x448")),
    ([LOAD, ANNOTATIONS, RESIZE, PACK], ("resize", "2048x448 as step 3", "2048x448")),
    ([LOAD, RESIZE, ANNOTATIONS, {"type": "X"}, PACK], ("input.further steps", [{"type": "X"}], "not set")),
    ([LOAD, RESIZE, ANNOTATIONS], ("input.pipeline", [LOAD, RESIZE, ANNOTATIONS], "not set")),
]
DEVIATIONS += [(dict(input__pipeline=pipeline), difference) for pipeline, difference in PIPELINES]


@pytest.mark.parametrize(("changes", "expected"), DEVIATIONS, ids=lambda value: str(value)[:60])
def test_one_deviation_is_named_with_both_values_and_only_it(changes, expected):
    protocol = find_protocol("clearclip", "voc21")
    (difference,) = protocol.differences(facts_of("voc21", **changes))
    assert (difference.setting, difference.measured, difference.published) == expected
    assert str(expected[1]) in str(difference) and str(expected[2]) in str(difference)


def test_several_pipelines_are_one_difference():
    facts = facts_of("voc21", input__pipelines=[[LOAD, RESIZE, ANNOTATIONS, PACK]] * 2, input__pipeline=REMOVED)
    (difference,) = find_protocol("clearclip", "voc21").differences(facts)
    assert difference.setting == "input.pipelines"


def test_fewer_images_of_known_files_are_one_difference():
    facts = facts_of("miniature", find_row("2", "CLIP", miniature=True), dataset__count=20, dataset__images="x")
    (difference,) = find_protocol("clearclip", "miniature").differences(facts)
    assert (difference.setting, difference.measured) == ("images", 20)


def test_two_deviations_are_both_named():
    facts = facts_of("voc21", model__prob_thd=0.2, model__logit_scale=40)
    differences = find_protocol("clearclip", "voc21").differences(facts)
    assert {difference.setting for difference in differences} == {"model.prob_thd", "model.logit_scale"}


def test_a_row_may_have_been_published_with_a_setting_of_its_own():
    protocol = find_protocol("clearclip", "voc21")
    facts = facts_of("voc21", model__prob_thd=0.2)
    assert not protocol.matches(facts)
    assert protocol.matches(facts, find_row("background", "CLIP").settings_for("voc21"))


@pytest.mark.parametrize("dataset", [*sorted(LAYOUTS)])
def test_configs_are_the_published_protocols(dataset, tmp_path):
    """A config makes a published run, but for the number of images here; one setting changed, and it does not."""
    made = make_layout(dataset, tmp_path, images=2)
    row = find_row("2", "CLIP + ClearCLIP", miniature=dataset == "miniature")
    root = {"test_dataloader.dataset.data_root": str(made["data_root"])}
    for name in [name for name, covered in protocols() if covered == dataset]:
        (group,) = plan([row], [dataset], root, protocol=name)
        protocol = find_protocol(name, dataset)

        def facts(group=group, protocol=protocol, **options):
            checked = CheckedDataset(group.cfg.test_dataloader.dataset)
            own = {name: getattr(group.settings, name) for name in ModelSettings.__dataclass_fields__}
            settings = ModelSettings.from_options({**own, **options})
            described = json.loads(json.dumps(run_facts(group.cfg, checked, settings, choose_device("cpu"), "fp32")))
            assert described["dataset"]["count"] == 2
            described["dataset"]["count"] = protocol.images
            if protocol.data:
                described["dataset"]["images"], described["dataset"]["masks"] = protocol.data.split()
            return described

        unknown_count = 1 if protocol.images is None else 0
        assert len(protocol.differences(facts())) == unknown_count
        assert len(protocol.differences(facts(logit_scale=41.0))) == 1 + unknown_count
        assert len(protocol.differences(facts(normalization="pretrained"))) == 1 + unknown_count


def test_the_miniature_is_its_published_protocol():
    """The bundled scenes, masks and weights, to the last byte."""
    (group,) = plan([find_row("2", "CLIP + ClearCLIP", miniature=True)], ("miniature",), {})
    checked = CheckedDataset(group.cfg.test_dataloader.dataset)
    facts = run_facts(group.cfg, checked, group.settings, choose_device("cpu"), "fp32")
    assert find_protocol("clearclip", "miniature").matches(json.loads(json.dumps(facts)))
    assert weights_facts(group.settings)["origin"] == "published"
