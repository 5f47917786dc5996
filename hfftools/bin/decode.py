"""hff-decode: an experiment in, hypotheses and scores of its test sets out, in exp/<name>/decode/<set>/."""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-decode", description=__doc__)
    parser.add_argument("exp", type=Path, help="the experiment's folder, such as exp/fusion")
    parser.add_argument(
        "--data", action="append", default=[], help="data directory; the experiment's own where not given"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that change no result: device=cpu")
    args = parser.parse_intermixed_args()
    from hfftools.log import setup_logging
    from hfftools.train.job import decode, read_scores

    setup_logging()
    for folder in decode(args.exp, args.data, args.overrides):
        for score in read_scores(folder).values():
            print(score.line(folder))
        print(f"wrote {folder}/text")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
