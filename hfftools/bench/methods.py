"""Compare the costs of methods, each as a ratio to full fine-tuning in the same precision.

A method is spelled as its file in conf/method, and may have options of its own: `houlsby:tune.layers=top4,train.bf16=true`.
"""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from hfftools.bench import measurement
from hfftools.config import conf_file
from hfftools.log import UserError, log, require
from hfftools.meter import resources
from hfftools.model import check
from hfftools.show import show
from hfftools.train import experiment
from hfftools.train.experiment import Config
from hfftools.upstream.names import parse

FULL = "full"  # the method that the others are measured against
FP32, BF16 = "train.bf16=false", "train.bf16=true"
NOTE = "Random weights, random audio, random labels: what training costs, never how well it does."


def known_methods() -> list[str]:
    """Return the names of the files in conf/method."""
    return sorted(path.stem for path in conf_file("method", FULL).parent.glob("*.yaml"))


def configure(words: list[str], files: list[Path], overrides: list[str]) -> dict[str, Config]:
    """Return {method as spelled: its configuration}; raise UserError for an unknown method or option."""
    return {word: _configure(word, files, overrides) for word in dict.fromkeys(words)}


def _configure(word: str, files: list[Path], overrides: list[str]) -> Config:
    """Return the configuration of one method as spelled; its own options win over `overrides`."""
    name, _, own = word.partition(":")
    options = re.split(r",(?![^\[]*\])", own) if own else []  # not at the commas of a list such as fuse.layers=[2,4]
    named = [option for option in [*overrides, *options] if option.startswith("upstream=")]
    require(len(set(named)) <= 1, f"'{named[-1]}': name the upstream by --upstream alone, which the table is headed by")
    config = experiment.configure([conf_file("method", name), *files], [*overrides, *options])
    parse(config.upstream).check_sizes()
    return experiment.choose_precision(config, experiment.device_of(config.device))


def show_all(configs: dict[str, Config]) -> str:
    """Return the options of several methods as yaml documents, each under a comment with the method as it was spelled."""
    return "---\n".join(f"# {word}\n{show(config)}" for word, config in configs.items())


def account(configs: dict[str, Config], seconds: float, count: int) -> list[str]:
    """Return a table of all costs but the times: one step of each method is run, and its operations are counted."""
    rows = []
    for config in configs.values():
        check(config)
    for word, config in configs.items():
        log.info(f"{word}: two steps on {count} × {seconds:g} s, and a count of operations")
        rows.append({"method": word, **resources.columns(measurement.measure(config, seconds, count))})
    return resources.table(rows)


class Bench:
    """Measure methods in rounds; `results` is {method as spelled: what it cost, or why it could not be measured}."""

    def __init__(self, words: list[str], files: list[Path], overrides: list[str]):
        """Configure the methods, and full fine-tuning in each of their precisions; raise UserError if there is none."""
        self.configs = configure(words, files, overrides)
        if not self.configs:
            raise UserError(f"no method to measure; known: {', '.join(known_methods())}")
        self.full: dict[bool, str] = {}  # {whether in bf16: the full fine-tuning in this precision}
        for bf16 in {config.train.bf16 for config in self.configs.values()}:
            self.full[bf16] = self._full(bf16, files, overrides)
        self.results: dict[str, dict] = {}

    def _full(self, bf16: bool, files: list[Path], overrides: list[str]) -> str:
        """Return the spelling of full fine-tuning in a precision, and add it to `configs` if it was not asked for."""
        with_option = f"{FULL}:{BF16 if bf16 else FP32}"
        for word in (with_option, FULL):
            if word in self.configs and self.configs[word].train.bf16 == bf16:
                return word
        plain = _configure(FULL, files, overrides)
        word = FULL if plain.train.bf16 == bf16 else with_option
        self.configs[word] = _configure(word, files, overrides)
        return word

    def run(self, seconds: float, count: int, steps: int, rounds: int, after_each: Callable[[], None]) -> None:
        """Measure each method once per round, the order reversed in every other one, so that drift affects all equally."""
        for number in range(rounds):
            for word in list(self.configs)[:: -1 if number % 2 else 1]:
                if "error" in self.results.get(word, {}):
                    continue
                try:
                    cost = measurement.measure(self.configs[word], seconds, count, steps, with_flops=number == 0)
                except UserError as error:
                    log.warning(f"{word}: {error}")
                    self.results[word] = {"error": str(error)}
                else:
                    self.results[word] = _merge(self.results.get(word), cost, seconds * count)
                    log.info(f"round {number + 1} of {rounds}, {word}: {cost['step_seconds_median']:.2f} s per step")
                self._compare()
                after_each()
        if all("error" in result for result in self.results.values()):
            raise UserError(f"no method could be measured; the first: {next(iter(self.results.values()))['error']}")

    def _compare(self) -> None:
        """Add to each result its ratios to full fine-tuning in the same precision, once that has been measured."""
        for word, mine in self.results.items():
            full = self.results.get(self.full[self.configs[word].train.bf16], {"error": ""})
            if "error" in mine or "error" in full:
                continue
            mine["times_as_fast_as_full"] = full["step_seconds_median"] / mine["step_seconds_median"]
            mine["flops_of_full"] = _flops(mine) / _flops(full)
            if full["peak_less_model_bytes"]:  # 0 for a tiny model, whose memory fits into what loading left free
                mine["memory_of_full"] = mine["peak_less_model_bytes"] / full["peak_less_model_bytes"]

    def table(self) -> list[str]:
        """Return the results as a table, in the order asked for; below it, what could not be measured."""
        rows = []
        for word in self.configs:
            result = self.results.get(word, {"error": "not yet"})
            if "error" not in result:
                rows.append(self._row(word, result))
        lines = resources.table(rows) if rows else []
        failed = [f"- {word}: {result['error']}" for word, result in self.results.items() if "error" in result]
        return [*lines, "", "Not measured:", *failed] if failed else lines

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


def _merge(before: dict | None, latest: dict, audio_s: float) -> dict:
    """Return the result of all rounds: the times of all steps, and the highest peak of memory."""
    if before is None:
        return latest
    times_s = before["step_seconds"] + latest["step_seconds"]
    peaks = {key: max(before[key], latest[key]) for key in ("peak_bytes", "peak_less_model_bytes")}
    median = statistics.median(times_s)
    return {
        **before,
        **peaks,
        "step_seconds": times_s,
        "step_seconds_median": median,
        "step_seconds_min": min(times_s),
        "audio_seconds_per_second": audio_s / median,
    }
