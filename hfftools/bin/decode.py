"""hff-decode: experiments in, hypotheses and scores of their test sets out, in exp/<name>/decode/<set>/.

Experiments of one upstream share it in memory. With --choose each utterance is decoded by an experiment of its own.
"""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-decode", description=__doc__)
    parser.add_argument(
        "args", nargs="+", metavar="exp | key=value", help="experiments, and options that change no result"
    )
    parser.add_argument(
        "--data", action="append", default=[], help="data directory; the experiment's own where not given"
    )
    parser.add_argument("--choose", type=Path, help="table of `utterance experiment`: which experiment decodes which")
    parser.add_argument("--out", type=Path, help="folder for what is decoded with --choose, a folder a set in it")
    args = parser.parse_intermixed_args()
    if (args.choose is None) != (args.out is None) or args.choose and not args.data:
        parser.error("--choose, --out and --data go together")
    roots = [Path(word) for word in args.args if "=" not in word]
    overrides = [word for word in args.args if "=" in word]
    if not roots:
        parser.error("name an experiment, such as exp/fusion")
    from hfftools.log import setup_logging
    from hfftools.train.decoding import decode, decode_chosen, read_scores

    setup_logging()
    if args.choose:
        folders = decode_chosen(roots, args.choose, args.data, args.out, overrides)
    else:
        folders = decode(roots, args.data, overrides)
    for folder in folders:
        for score in read_scores(folder).values():
            print(score.line(folder))
        print(f"wrote {folder}/text")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
