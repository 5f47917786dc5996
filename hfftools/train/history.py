"""Record what each epoch of a run gave, choose the best epochs, and decide whether to stop."""

import json
from functools import cached_property

from torch.utils.tensorboard import SummaryWriter

from hfftools import score
from hfftools.disk import writing
from hfftools.expdir import ExpDir, write_text
from hfftools.log import UserError, log


class Diverged(UserError):
    """Report that training itself failed: its options are valid, but another choice of them may train."""


def summary(record: dict) -> str:
    """Return the metric of a record and its value: `dev CER 12.34 %`, or `dev accuracy 87.50 % (higher is better)`."""
    direction = "" if score.is_lower_better(record) else " (higher is better)"
    return f"dev {score.title(record['metric'])} {100 * score.dev_value(record):.2f} %{direction}"


class History:
    """Hold the records {epoch, dev_error, metric, lower_is_better, dev_loss, empty, …} of a run, by epoch."""

    def __init__(self, exp: ExpDir, records: list[dict] | None = None):
        self.exp, self.records = exp, records or []

    @cached_property
    def _board(self) -> SummaryWriter:
        """Return the writer for TensorBoard; it hides what a killed call wrote for epochs after these records."""
        return SummaryWriter(str(self.exp.tensorboard), purge_step=len(self.records))

    def add(self, record: dict) -> None:
        self.records.append(record)

    def write(self) -> None:
        """Write all records to history.jsonl, and the newest one to TensorBoard."""
        write_text(self.exp.history, "".join(json.dumps(r) + "\n" for r in self.records))
        newest = dict(self.records[-1])
        newest[f"dev_{newest.pop('metric')}"] = score.dev_value(newest)  # TensorBoard stores numbers only
        del newest["dev_error"]
        newest.pop("lower_is_better", None)
        with writing(self.exp.tensorboard):
            for key, value in newest.items():
                for name, number in value.items() if isinstance(value, dict) else [("", value)]:
                    self._board.add_scalar(f"{key}/{name}".rstrip("/"), number, newest["epoch"])
            self._board.flush()

    def best(self, count: int) -> list[int]:
        """Return the `count` epochs of lowest dev error, then dev loss, or all if there are fewer; the best one first."""
        ranked = sorted(self.records, key=lambda r: (r["dev_error"], r["dev_loss"]))
        return [record["epoch"] for record in ranked[:count]]

    def report_average(self, best: list[int], scores: dict) -> None:
        """Log the dev scores of the average of the epochs `best`; warn if its error is 1.1 times that of the first alone.

        Weights that are far apart, as those of a run's first epochs, have an average that is worse than each of them.
        """
        log.info(f"average of epochs {sorted(best)}: {summary(scores)}")
        alone = next(record for record in self.records if record["epoch"] == best[0])
        if scores["dev_error"] > 1.1 * alone["dev_error"]:
            log.warning(
                f"{self.exp.root}: the average of epochs {sorted(best)} has {summary(scores)}, epoch {best[0]} alone "
                f"{summary(alone)}; train in a fresh folder with train.average=1, or with more epochs"
            )

    def stale(self, patience: int) -> bool:
        """Return whether the lowest dev error is at least `patience` epochs old; False if `patience` is 0."""
        if not patience or not self.records:
            return False
        best = min(self.records, key=lambda r: r["dev_error"])
        return len(self.records) - best["epoch"] >= patience

    def check_blank(self, count: int) -> None:
        """Raise Diverged if the predictions of each of the last `count` epochs are empty; never if `count` is 0."""
        if count and len(self.records) >= count and all(r["empty"] > 0.99 for r in self.records[-count:]):
            raise Diverged(
                f"{self.exp.root}: every dev hypothesis has been empty for {count} epochs (the all-blank collapse); "
                "try a lower or higher optim.head.lr, smaller data.batch_seconds for more steps, or check text against audio"
            )
