"""Methods by name in, what they cost side by side out, each beside full fine-tuning in the same precision.

A method is spelled as its file in conf/method, and may carry options of its own: `houlsby:tune.layers=top4,train.bf16=true`.
"""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from hfftools.bench import measurement
from hfftools.config import conf_file
from hfftools.log import UserError, log
from hfftools.meter import resources
from hfftools.model import check
from hfftools.show import show
from hfftools.train import experiment
from hfftools.train.experiment import Config
from hfftools.upstream.shapes import check_shape

FULL = "full"  # the method that the others are measured against
FP32, BF16 = "train.bf16=false", "train.bf16=true"
NOTE = "Random weights, random audio, random labels: what training costs, never how well it does."


def known_methods() -> list[str]:
    """The names of conf/method."""
    return sorted(path.stem for path in conf_file("method", FULL).parent.glob("*.yaml"))


def configure(words: list[str], files: list[Path], overrides: list[str]) -> dict[str, Config]:
    """{method as spelled: its configuration}; UserError for a method or an option that there is not."""
    return {word: _configure(word, files, overrides) for word in dict.fromkeys(words)}


def _configure(word: str, files: list[Path], overrides: list[str]) -> Config:
    name, _, own = word.partition(":")
    options = re.split(r",(?![^\[]*\])", own) if own else []  # not at the commas of a list such as fuse.layers=[2,4]
    config = experiment.configure([conf_file("method", name), *files], [*overrides, *options])
    check_shape(config.upstream)
    return experiment.choose_precision(config, experiment.device_of(config.device))


def show_all(configs: dict[str, Config]) -> str:
    """Return the options of several methods as yaml documents, each under a comment with the method as it was spelled."""
    return "---\n".join(f"# {word}\n{show(config)}" for word, config in configs.items())


def account(configs: dict[str, Config], seconds: float, count: int) -> list[str]:
    """All but the times, as a table: one step of each method, and the count of its operations."""
    rows = []
    for config in configs.values():
        check(config)
    for word, config in configs.items():
        log.info(f"{word}: two steps on {count} × {seconds:g} s, and a count")
        rows.append({"method": word, **resources.columns(measurement.measure(config, seconds, count))})
    return resources.table(rows)


class Bench:
    """Measures methods in rounds; `results` {method as spelled: what it cost, or why it could not be measured}."""

    def __init__(self, words: list[str], files: list[Path], overrides: list[str]):
        self.configs = configure(words, files, overrides)
        if not self.configs:
            raise UserError(f"no method to measure; known: {', '.join(known_methods())}")
        self.full: dict[bool, str] = {}  # by precision
        for bf16 in {config.train.bf16 for config in self.configs.values()}:
            alike = [f"{FULL}:{BF16 if bf16 else FP32}", FULL]
            if not (there := [w for w in alike if w in self.configs and self.configs[w].train.bf16 == bf16]):
                word = next(w for w in reversed(alike) if _configure(w, files, overrides).train.bf16 == bf16)
                self.configs[word] = _configure(word, files, overrides)
                there = [word]
            self.full[bf16] = there[0]
        self.results: dict[str, dict] = {}

    def run(self, seconds: float, count: int, steps: int, rounds: int, after_each: Callable[[], None]) -> None:
        """Measure each method once a round, every other round in the opposite order: what drifts weighs on all alike."""
        for number in range(rounds):
            for word in list(self.configs)[:: -1 if number % 2 else 1]:
                if "error" in self.results.get(word, {}):
                    continue
                try:
                    found = measurement.measure(self.configs[word], seconds, count, steps, with_flops=number == 0)
                except UserError as error:
                    log.warning(f"{word}: {error}")
                    self.results[word] = {"error": str(error)}
                else:
                    self.results[word] = _merge(self.results.get(word), found, seconds * count)
                    log.info(f"round {number + 1} of {rounds}, {word}: {found['step_seconds_median']:.2f} s a step")
                self._compare()
                after_each()
        if all("error" in result for result in self.results.values()):
            raise UserError(f"no method could be measured; the first: {next(iter(self.results.values()))['error']}")

    def _compare(self) -> None:
        """To each result its ratios to full fine-tuning in the same precision, once that is there."""
        for word, mine in self.results.items():
            full = self.results.get(self.full[self.configs[word].train.bf16], {"error": ""})
            if "error" in mine or "error" in full:
                continue
            mine["times_as_fast_as_full"] = full["step_seconds_median"] / mine["step_seconds_median"]
            mine["flops_of_full"] = _flops(mine) / _flops(full)
            if full["peak_less_model_bytes"]:  # of a tiny model, none can be seen
                mine["memory_of_full"] = mine["peak_less_model_bytes"] / full["peak_less_model_bytes"]

    def table(self) -> list[str]:
        """The results as a table, in the order asked for; what could not be measured below it."""
        measured = {word: r for word in self.configs if "error" not in (r := self.results.get(word, {"error": ""}))}
        failed = [f"- {word}: {r['error']}" for word, r in self.results.items() if "error" in r]
        lines = resources.table([self._row(word, result) for word, result in measured.items()]) if measured else []
        return [*lines, *(["", "Not measured:", *failed] if failed else [])]

    def _row(self, word: str, result: dict) -> dict[str, str]:
        def ratio(key: str) -> str:
            return f"{result[key]:.2f}" if key in result else "–"

        costs = resources.columns(result)
        return {
            "method": word,
            "precision": "bf16" if result["bf16"] else "fp32",
            "step s": resources.three_digits(result["step_seconds_median"]),
            "audio s/s": resources.three_digits(result["audio_seconds_per_second"]),
            "× speed of full": ratio("times_as_fast_as_full"),
            "GFLOP": resources.three_digits(_flops(result) / 1e9),
            "× GFLOP of full": ratio("flops_of_full"),
            "less model MB": costs["less model MB"],
            "× memory of full": ratio("memory_of_full"),
            "trainable encoder": f"{result['parameters']['trainable_encoder']:,}",
            "checkpoint MB": costs["checkpoint MB"],
        }


def _flops(result: dict) -> float:
    return result["forward_flops_per_s"] + result["backward_flops_per_s"]


def _merge(before: dict | None, found: dict, audio_s: float) -> dict:
    """All rounds' steps together; the highest peak of memory."""
    if before is None:
        return found
    times_s = before["step_seconds"] + found["step_seconds"]
    peaks = {key: max(before[key], found[key]) for key in ("peak_bytes", "peak_less_model_bytes")}
    median = statistics.median(times_s)
    return {
        **before,
        **peaks,
        "step_seconds": times_s,
        "step_seconds_median": median,
        "step_seconds_min": min(times_s),
        "audio_seconds_per_second": audio_s / median,
    }
