"""hff-prepare: a corpus in its own layout in, one Kaldi data directory a set out."""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-prepare", __doc__)
    parser.add_argument("corpus", help="an4, commonvoice, librispeech or mini")
    parser.add_argument(
        "--source",
        type=Path,
        help="the corpus, in its own layout, or Common Voice's tarball; where not given it is downloaded or, as mini, made",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the data directories, such as data/")
    parser.add_argument("--limit", type=int, help="at most so many utterances a set")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="key=value",
        help="the corpus' own: parts=[a,b] and librilight=10h of librispeech; "
        "lang=fr, hours=10, dev_hours=1, text.case=upper and more of commonvoice",
    )
    args = parser.parse_intermixed_args()
    from hfftools.corpora.prepare import prepare
    from hfftools.log import setup_logging

    setup_logging()
    prepare(args.corpus, args.source, args.out, args.limit, args.options)


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
