"""hff-score: print %WER, %CER and %TER of decoded sets, and write score_*/result.txt; given several, compare them.

One experiment (exp/<name>: all its decoded sets) or one decoded set (exp/<name>/decode/<set>) is scored again. Given
several, each is compared with the first on the sets that both have: the difference, its 95 % interval, and its p-value.
"""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-score", __doc__)
    parser.add_argument("exp", type=Path, nargs="+", help="experiments, or folders such as exp/fusion/decode/test")
    parser.add_argument("--out", type=Path, help="file for the same figures as JSON")
    args = parser.parse_args()
    from dataclasses import asdict

    from hfftools.expdir import write_json
    from hfftools.log import setup_logging
    from hfftools.report.compare_systems import compare, decoded_sets

    setup_logging()
    if len(args.exp) == 1:
        from hfftools.infer.decode_sets import rescore

        scores = {str(folder): rescore(folder) for folder in decoded_sets(args.exp[0])}
        for folder, by_metric in scores.items():
            print("\n".join(score.line(folder) for score in by_metric.values()))
        if args.out:
            figures = {}
            for folder, by_metric in scores.items():
                figures[folder] = {metric: asdict(score) for metric, score in by_metric.items()}
            write_json(args.out, figures)
        return
    comparisons = []
    for other in args.exp[1:]:
        comparisons += compare(args.exp[0], other)
    print("\n\n".join("\n".join(comparison.lines()) for comparison in comparisons))
    print("\nBoth take utterances, or speakers, as independent; one run of each: what another seed gives is not in it.")
    if len(comparisons) > 1:
        print(f"{len(comparisons)} comparisons: of systems that are alike, one in twenty has p below 0.05.")
    if args.out:
        write_json(args.out, [comparison.as_json() for comparison in comparisons])


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
