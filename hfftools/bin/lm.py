"""hff-lm: transcripts or text files in, a Kneser-Ney n-gram language model out, as lm.arpa and words.txt.

Or one of LibriSpeech's own, by --download; --held-out tells how well either predicts another text.
"""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-lm", description=__doc__)
    parser.add_argument("text", type=Path, nargs="*", help="data directories such as data/train, or text files")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--units", type=Path, help="a folder of units: over them instead of words")
    parser.add_argument("--download", metavar="NAME", help="in place of text, such as 3-gram.pruned.1e-7")
    parser.add_argument("--held-out", type=Path, help="data directory or text file to report the perplexity of")
    parser.add_argument("--out", type=Path, required=True, help="folder such as exp/lm")
    args = parser.parse_args()
    if bool(args.text) == bool(args.download):
        parser.error("give text to learn from, or --download, and not both")
    from hfftools.data.corpora.librispeech import language_model
    from hfftools.data.units import load
    from hfftools.decode import ngram
    from hfftools.log import setup_logging

    setup_logging()
    units = load(args.units) if args.units else None
    if args.download:
        made = language_model(args.download, args.out)
    else:
        texts = [text for path in args.text for text in ngram.read_texts(path)]
        made = ngram.make(texts, args.order, units, args.out)
    print(f"wrote {made}")
    if args.held_out:
        from hfftools.decode.lm import Ngram

        sentences = [ngram.tokens(text, units) for text in ngram.read_texts(args.held_out)]
        perplexity, words, unknown = Ngram(made).perplexity(sentences)
        print(f"{args.held_out}: perplexity {perplexity:.2f} without the {unknown} unknown of {words} words")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
