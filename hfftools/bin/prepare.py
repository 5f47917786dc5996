"""hff-prepare: read a corpus in its own layout and write one Kaldi data directory for each of its sets."""

from pathlib import Path

from hfftools.cli import add_show, command_parser, run_main


def main() -> None:
    from hfftools.config import plugin_names  # light enough for --help

    parser = command_parser("hff-prepare", __doc__)
    parser.add_argument("corpus", help=f"one of: {', '.join(plugin_names('corpora'))}")
    parser.add_argument(
        "--source",
        type=Path,
        help="the corpus in its own layout, or the tarball of Common Voice; without it, the corpus is downloaded if it has "
        "an open download, or generated (mini)",
    )
    parser.add_argument("--out", type=Path, help="folder for the data directories, such as data/")
    parser.add_argument("--limit", type=int, help="take at most this many utterances per set")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="key=value",
        help="options of the corpus, such as parts=[a,b] of librispeech or lang=fr hours=10 of commonvoice; --show prints "
        "them all",
    )
    add_show(parser)
    args = parser.parse_intermixed_args()
    if args.out is None and not args.show:
        parser.error("--out is required")
    from hfftools.corpora.prepare import configure, prepare
    from hfftools.log import setup_logging
    from hfftools.show import show

    if args.show:
        config = configure(args.corpus, args.options)
        print(f"# {args.corpus} has no options of its own\n" if config is None else show(config), end="")
        return
    setup_logging()
    prepare(args.corpus, args.source, args.out, args.limit, args.options)


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
