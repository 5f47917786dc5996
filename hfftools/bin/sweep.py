"""hff-sweep: train once with each value of an option, and write the best on dev as a yaml for hff-train --config."""

from pathlib import Path

from hfftools.cli import add_show, command_parser, packaged_names, run_main


def main() -> None:
    parser = command_parser("hff-sweep", __doc__)
    parser.add_argument("out", type=Path, help="folder for the runs, one per value, and for best.yaml")
    parser.add_argument(
        "--keys", nargs="+", required=True, help="options that are set to each value, such as optim.fuse.lr"
    )
    parser.add_argument("--values", nargs="+", required=True, help="values to try, such as 1e-3 2e-3 4e-3")
    parser.add_argument("--method", help=f"a method: {packaged_names('method')}")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("--options", nargs="*", default=[], metavar="key=value", help="options of all runs")
    add_show(parser)
    args = parser.parse_args()
    from hfftools.config import conf_file
    from hfftools.log import setup_logging
    from hfftools.show import show
    from hfftools.train.experiment import configure
    from hfftools.train.sweep import sweep

    sources = [*([conf_file("method", args.method)] if args.method else []), *args.config]
    if args.show:
        print(show(configure(sources, args.options)), end="")
        return
    setup_logging()
    best = sweep(args.out, sources, args.options, args.keys, args.values)
    print(f"wrote {best}: {best.read_text().strip()}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
