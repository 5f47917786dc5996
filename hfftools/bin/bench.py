"""hff-bench: measure step time, operations and memory of methods, as ratios to full fine-tuning, on random weights."""

from pathlib import Path

from hfftools.cli import add_show, command_parser, number, run_main


def main() -> None:
    parser = command_parser("hff-bench", __doc__)
    parser.add_argument("--upstream", required=True, help="a name such as wav2vec2_large, hf:OWNER/NAME or hf:FOLDER")
    parser.add_argument("--methods", default="", help="such as 'hff full houlsby:tune.layers=top4'; without it, all")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("--seconds", type=number, default=10.0, help="length of each utterance in seconds")
    parser.add_argument("--batch", type=int, default=2, help="utterances per step")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed per round, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2, help="times that all methods are measured")
    parser.add_argument(
        "--out", type=Path, default=Path("bench.md"), help="file to write, and a .json of the same name"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="any option, such as device=cuda or train.bf16=true"
    )
    add_show(parser)
    args = parser.parse_intermixed_args()
    from hfftools.bench import methods
    from hfftools.expdir import write_json, write_text
    from hfftools.log import require, setup_logging
    from hfftools.meter import resources
    from hfftools.report.results import environment

    for name in ("seconds", "batch", "steps", "rounds"):
        require(getattr(args, name) > 0, f"--{name}: {getattr(args, name)} is not above 0")
    setup_logging()
    options = [f"upstream={args.upstream}", *args.overrides]
    run = methods.Bench(args.methods.split() or methods.known_methods(), args.config, options)
    if args.show:
        print(methods.show_all(run.configs), end="")
        return
    facts = {name: getattr(args, name) for name in ("upstream", "seconds", "batch", "steps", "rounds", "overrides")}
    facts["environment"] = environment()
    head = [f"# {args.upstream}, steps of {args.batch} × {args.seconds:g} s", "", *facts["environment"], ""]
    tail = ["", f"Medians of {args.rounds} rounds of {args.steps} steps. {methods.NOTE}", *resources.LEGEND, ""]
    text, data = args.out, Path(f"{str(args.out).removesuffix('.md')}.json")

    def write() -> None:
        write_json(data, {**facts, "methods": run.results})
        write_text(text, "\n".join([*head, *run.table(), *tail]))

    run.run(args.seconds, args.batch, args.steps, args.rounds, write)
    print("\n".join(run.table()))
    print(f"wrote {text}, {data}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
