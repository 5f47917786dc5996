"""hff-report: finished experiments in, RESULTS.md and a plot of error against cost out; the table is printed as well."""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-report", description=__doc__)
    parser.add_argument(
        "exp", type=Path, nargs="+", help="experiments; those that differ in their seed alone share a row"
    )
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"), help="file to write")
    parser.add_argument("--title", default="Results", help="its first line")
    args = parser.parse_args()
    from hfftools.analysis.plot import error_against_cost
    from hfftools.report import report

    table, points = report(args.exp, args.out, args.title)
    pictures = [error_against_cost(args.out.parent / "error_vs_cost.png", points)] if points else []
    pictures += [path for exp in args.exp for path in sorted(exp.glob("images/*.png"))]
    print("\n".join(table))
    print("wrote " + "\n      ".join(str(path) for path in [args.out, *pictures]))


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
