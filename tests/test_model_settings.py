"""Options of a model: what was an option of the model and is one of its method now."""

import re

import pytest

from clearclip import ModelSettings, UserError, build_method
from clearclip.commands.eval_parser import eval_parser
from clearclip.evaluation.config import CONFIGS, load_config, model_settings
from clearclip.methods import GEM, NACLIP, RCS, LastBlock, ProxyCLIP

CONFIG = CONFIGS / "cfg_miniature.py"
#: The options of a model as they were, and the method that they meant.
MOVED = [
    ({"attention": "kk"}, LastBlock("kk")),
    ({"alpha": 2, "residual": True}, LastBlock(residual=True, alpha=2)),
    ({"model_type": "SCLIP", "alpha": 2.0}, LastBlock("qq+kk", alpha=2)),
    ({"model_type": "SCLIP", "ignore_residual": False, "ffn": False}, LastBlock("qq+kk", residual=True)),
    ({"model_type": "vanilla", "attention": "vv"}, LastBlock("vv")),
    ({"model_type": "GEM", "residual": True}, GEM(residual=True)),
    ({"model_type": "NACLIP", "residual": True}, NACLIP(residual=True)),
    ({"method": "SCLIP + ClearCLIP", "residual": True}, LastBlock("qq+kk", residual=True)),
    (
        {"model_type": "ProxyCLIP", "guide": "dino-vits8", "guide_weights": "random"},
        ProxyCLIP("dino-vits8", "random"),
    ),
]


@pytest.mark.parametrize(("options", "method"), MOVED)
@pytest.mark.filterwarnings("error")
def test_the_error_has_the_new_spelling_of_the_same_method(options, method):
    with pytest.raises(UserError, match=r"write method=dict\(type=") as error:
        ModelSettings.from_options(options)
    message = str(error.value)
    assert "\n" not in message
    for name in set(options) - {"model_type", "ignore_residual", "method"}:
        assert message.index(name) < message.index("cannot be set")
    # The proposal is Python, as a config is.
    spelling = re.search(r"write method=(dict\(.*\)), or on a command line", message).group(1)
    assert ModelSettings(method=eval(spelling)).chosen_method == method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "GEM", "ffn": True}, "GEM has no option 'ffn'; choose from residual"),
        ({"method": "NACLIP + RCS", "guide": "dino-vits8"}, "RCS has no option 'guide'"),
        ({"model_type": "SCLAP", "alpha": 2}, "unknown model_type 'SCLAP'; did you mean SCLIP"),
        ({"method": "CLIP", "model_type": "SCLAP"}, "unknown model_type 'SCLAP'"),
        ({"alpha": 0}, "alpha=0 without the residual"),
        ({"method": {"type": "ClearCLIP", "atention": "kk"}}, "no option 'atention'; did you mean attention?"),
        ({"method": '{"type": "ClearCLIP", "atention": "kk"}'}, "^ClearCLIP has no option 'atention'"),
        ({"method": {"attention": "kk"}}, "{'attention': 'kk'} has no type"),
    ],
)
def test_an_impossible_method_is_refused_as_such(options, message):
    with pytest.raises(UserError, match=message):
        ModelSettings.from_options(options)


def test_the_new_spelling_of_a_command_line_works():
    with pytest.raises(UserError) as error:
        model_settings(load_config(CONFIG, {"model.alpha": 2, "model.residual": True}))
    _, spelling = str(error.value).split("on a command line ")
    arguments = eval_parser().parse_args(["--config", str(CONFIG), "--cfg-options", *spelling.split()])
    settings = model_settings(load_config(CONFIG, arguments.cfg_options))
    assert settings.chosen_method == LastBlock(residual=True, alpha=2)


def test_the_published_spelling_names_the_rows_of_the_table():
    """``model_type`` and ``ignore_residual`` of the authors' config, against the names in the paper's table."""
    for name in ("MaskCLIP", "SCLIP", "GEM"):
        assert ModelSettings(model_type=name, ignore_residual=False).chosen_method == build_method(name)
        assert ModelSettings(model_type=name).chosen_method == build_method(f"{name} + ClearCLIP")
    assert ModelSettings(model_type="vanilla", ignore_residual=False).chosen_method == build_method("CLIP")
    assert ModelSettings().chosen_method == RCS().base == build_method("ClearCLIP")
