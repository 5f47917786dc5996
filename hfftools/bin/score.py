"""hff-score: decoded sets in (exp/<name>/decode/<set>), their %WER, %CER and %TER out, and score_*/result.txt."""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-score", description=__doc__)
    parser.add_argument("decoded", type=Path, nargs="+", help="folders such as exp/fusion/decode/test")
    args = parser.parse_args()
    from hfftools.train.decoding import rescore

    for folder in args.decoded:
        for score in rescore(folder).values():
            print(score.line(folder))


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
