"""hff-units: make an inventory of units (characters, BPE or unigram pieces) from the transcripts of data directories."""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-units", __doc__)
    parser.add_argument("data", type=Path, nargs="+", help="data directories, such as data/train")
    parser.add_argument("--kind", choices=("char", "bpe", "unigram"), required=True)
    parser.add_argument(
        "--size", type=int, help="number of units of bpe and unigram, blank and unknown included (default: 500)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the units, such as data/units_char")
    args = parser.parse_args()
    from hfftools.data.table import read_table
    from hfftools.log import setup_logging
    from hfftools.text import units

    setup_logging()
    texts = [" ".join(t.split()) for d in args.data for t in read_table(d / "text", value_required=False).values()]
    made = units.make(args.kind, texts, args.size, args.out)
    print(f"{args.out}: {len(made)} units ({args.kind})")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
