"""Check the choice of bfloat16: by hardware for auto, refused in one line where it is asked for and impossible."""

import pytest
import torch

from hfftools.log import UserError
from hfftools.nn import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("capability, native", [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False)])
def test_auto_follows_what_the_processor_multiplies_natively(capability, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert precision.use_bf16("auto", CPU, "train.bf16") is native
    assert precision.use_bf16(False, CPU, "train.bf16") is False


def test_true_is_refused_where_the_processor_cannot(monkeypatch):
    monkeypatch.setattr(precision, "_possible", lambda device: False)
    with pytest.raises(
        UserError, match="^train.bf16: this processor does not compute in bfloat16; set train.bf16=auto"
    ):
        precision.use_bf16(True, CPU, "train.bf16")
    assert precision.use_bf16(False, CPU, "train.bf16") is False


def test_true_is_kept_where_it_works_by_conversion(monkeypatch):
    monkeypatch.setattr(precision, "_possible", lambda device: True)
    monkeypatch.setattr(precision, "_native", lambda device: False)
    assert precision.use_bf16(True, CPU, "train.bf16") is True


def test_another_spelling_is_refused():
    with pytest.raises(UserError, match="train.bf16: 'maybe' is not one of auto, true, false"):
        precision.check_bf16("maybe", "train.bf16")
