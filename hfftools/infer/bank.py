"""Load several trained experiments over one upstream, as models that share its frozen tensors.

Each experiment is a model of its own whose upstream is a view of the one that was loaded: frozen tensors are in memory once,
and an experiment adds what it has trained (for a language, a domain, a task each).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from hfftools.data.batch import Batch
from hfftools.expdir import ExpDir
from hfftools.model import Model
from hfftools.train import checkpoint, experiment
from hfftools.train.config import Config
from hfftools.upstream.base import Upstream
from hfftools.upstream.names import load_upstream


class Bank:
    """Hold trained models by the folders of their experiments.

    `bank.add(exp)` loads one, `bank.models[exp]` is it; `predict` takes a batch in which each utterance has its own.
    """

    def __init__(self):
        self.models: dict[Path, Model] = {}
        self._upstreams: dict[tuple[str, str], Upstream] = {}

    def add(self, root: Path, config: Config | None = None) -> Model:
        """Load the final checkpoint of an experiment, and its upstream unless an earlier experiment had the same one."""
        exp = ExpDir(Path(root))
        config = config or experiment.read_config(exp, [])
        checkpoint.digest(exp.final)  # where it is missing, say so before the upstream is loaded
        device = experiment.device_of(config.device)
        key = (config.upstream, str(device))
        if key not in self._upstreams:
            self._upstreams[key] = load_upstream(config.upstream).to(device)
        model = Model(config, experiment.kept_targets(exp, config), self._upstreams[key].view())
        checkpoint.load(exp.final, model)
        self.models[exp.root] = model.to(device).eval()
        return self.models[exp.root]

    @torch.no_grad()
    def predict(self, batch: Batch, roots: Sequence[Path]) -> list[str]:
        """Return the predictions of a batch; `roots` names the experiment of each utterance."""
        predictions = [""] * len(batch.ids)
        for root in dict.fromkeys(roots):
            rows = [row for row, chosen in enumerate(roots) if chosen == root]
            model = self.models[root]
            theirs = model.predict(batch.select(rows).to(next(model.parameters()).device))
            for row, prediction in zip(rows, theirs, strict=True):
                predictions[row] = prediction
        return predictions
