"""hff-train: an experiment's folder and a method in, a trained model out; run it again to go on where it stopped.

On several GPUs: torchrun --standalone --nproc-per-node 2 --no-python hff-train exp/x … train.accumulate=2
"""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-train", description=__doc__)
    parser.add_argument("exp", type=Path, help="the experiment's folder, such as exp/fusion")
    parser.add_argument("--method", help="a method of conf/method, such as hff or weighted_sum")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option, over all files")
    args = parser.parse_intermixed_args()
    from hfftools import dist
    from hfftools.config import conf_file
    from hfftools.log import log, setup_logging
    from hfftools.probe.plot import training_curves
    from hfftools.train.job import train

    setup_logging()
    with dist.join():
        files = [*([conf_file("method", args.method)] if args.method else []), *args.config]
        exp = train(args.exp, files, args.overrides)
        if dist.is_main():
            log.info(f"wrote {exp.final}, {', '.join(str(p) for p in training_curves(exp))}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
