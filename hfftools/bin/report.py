"""hff-report: write RESULTS.md and a plot of error against cost of finished experiments, and print the table."""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-report", __doc__)
    parser.add_argument(
        "exp",
        type=Path,
        nargs="+",
        help="experiments; those that differ in their seed alone share a row, and each recipe and upstream has a section",
    )
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"), help="file to write")
    parser.add_argument("--title", default="Results", help="first line of the file")
    parser.add_argument(
        "--command", default="", help="the command that made the experiments, which the file then names"
    )
    args = parser.parse_args()
    from hfftools.expdir import ExpDir
    from hfftools.log import setup_logging
    from hfftools.report.cost_plot import error_against_cost
    from hfftools.report.results import report

    setup_logging()
    table, plots = report(args.exp, args.out, args.title, args.command)
    pictures = [error_against_cost(plot) for plot in plots]
    print("\n".join(table))
    print("\nwrote " + "\n      ".join(str(path) for path in [args.out, *pictures]))
    drawn = sum(1 for exp in args.exp for _ in ExpDir(exp).images.glob("*.png"))
    if drawn:
        print(f"{drawn} pictures of training (loss, metric, layer weights) are in each experiment's images/")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
