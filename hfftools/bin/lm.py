"""hff-lm: estimate a Kneser-Ney n-gram language model from transcripts or text files, as lm.arpa and words.txt.

With --model it takes an existing model instead, or downloads one of LibriSpeech's by name. --held-out prints the model's
perplexity on a text.
"""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-lm", __doc__)
    parser.add_argument("text", type=Path, nargs="*", help="data directories such as data/train, or text files")
    parser.add_argument("--order", type=int, help="words or units in an n-gram, 2 to 6 (default 3)")
    parser.add_argument(
        "--units", type=Path, help="a folder of units; the model is then over these units, not over words"
    )
    parser.add_argument(
        "--model", help="instead of text: a model file, or a name such as 3-gram.pruned.1e-7, which is downloaded"
    )
    parser.add_argument("--held-out", type=Path, help="data directory or text file to report the perplexity of")
    parser.add_argument("--out", type=Path, required=True, help="folder such as exp/lm")
    args = parser.parse_args()
    if bool(args.text) == bool(args.model) or args.model and args.order is not None:
        parser.error("give text to learn from, with its --order, or --model")
    from hfftools.corpora.librispeech import language_model
    from hfftools.decode import ngram
    from hfftools.log import require, setup_logging
    from hfftools.text.units import load

    setup_logging()
    units = load(args.units) if args.units else None
    if args.model:
        made = Path(args.model) if Path(args.model).exists() else language_model(args.model, args.out)
    else:
        texts = [text for path in args.text for text in ngram.read_texts(path)]
        made = ngram.make(texts, 3 if args.order is None else args.order, units, args.out)
    print(made)
    if args.held_out:
        from hfftools.decode.lm import Ngram, of_units

        require(units is not None or of_units(made) is None, f"{made} is over units: say which, by --units")
        sentences = [ngram.tokens(text, units) for text in ngram.read_texts(args.held_out)]
        require(bool(sentences), f"{args.held_out} has no text to report the perplexity of")
        perplexity, words, unknown = Ngram(made).perplexity(sentences)
        require(unknown < words, f"{made} has no word of {args.held_out}; are both in upper or in lower case?")
        print(f"{args.held_out}: perplexity {perplexity:.2f} without the {unknown} unknown of {words} words")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
