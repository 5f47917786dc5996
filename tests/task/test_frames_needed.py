"""How many frames labels need: as many as the task's loss does in training; who has too few is left out beforehand."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from hfftools.bench.measurement import made_up_units
from hfftools.config import plugin
from hfftools.data.table import read_table, write_table
from hfftools.log import UserError
from hfftools.train import job
from hfftools.train.history import Diverged

TASKS = {"asr_ctc": {}, "asr_transducer": {"joint_dim": 4}, "asr_transducer alone": {"joint_dim": 4, "ctc": 0.0}}
NEEDED = {"asr_ctc": (3, 5, 7), "asr_transducer": (3, 5, 7), "asr_transducer alone": (1, 1, 1)}


@pytest.mark.parametrize("name", TASKS)
def test_with_one_frame_less_the_loss_is_infinite(name):
    torch.manual_seed(0)
    room = plugin("task", name.split()[0])
    task = room.Task(6, made_up_units(), room.Config(head="linear", **TASKS[name])).train()
    assert task.frames_needed([]) == 0
    for ids, needed in zip(([3, 4, 3], [3, 3, 4, 5], [3, 3, 3, 3]), NEEDED[name], strict=True):
        assert task.frames_needed(ids) == needed
        batch = SimpleNamespace(targets_BL=torch.tensor([ids]), target_lens_B=torch.tensor([len(ids)]))
        for frames, finite in ((needed, True), (needed - 1, False)):
            loss_B = task.loss(lambda _, frames=frames: (torch.randn(1, 9, 6), torch.tensor([frames])), batch)
            assert torch.isfinite(loss_B).all() == finite, (ids, frames)


def test_a_transducer_without_ctc_learns_from_more_labels_than_frames(options, corpus, tmp_path):
    shutil.copytree(corpus / "train", tmp_path / "train")
    texts = read_table(corpus / "train" / "text").items()
    write_table(tmp_path / "train" / "text", {utt: text + " set the light" * 12 for utt, text in texts})
    here = [*options, f"data.train={tmp_path}/train", "task.name=asr_transducer", "task.joint_dim=8", "train.epochs=1"]
    with pytest.raises(UserError, match=r"(\d+) of \1 utterances have too few frames for their labels, first"):
        job.train(tmp_path / "both", [], here)
    assert job.train(tmp_path / "alone", [], [*here, "task.ctc=0"]).final.exists()
    hot = [*here, "task.ctc=0", "optim.head.lr=1e30", "optim.fuse.lr=1e30", "optim.clip=1e30", "train.epochs=3"]
    with pytest.raises(
        Diverged, match="not finite|loss is (nan|inf)"
    ):  # and no word of frames, of which there are enough
        job.train(tmp_path / "hot", [], hot)
