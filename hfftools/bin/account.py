"""hff-account: print what training methods on an upstream costs, without the times, before anything is trained.

The upstream is built with random weights from a table of shapes, and nothing is downloaded but the config.json of
hf:OWNER/NAME. A method may have options of its own: houlsby:tune.layers=top4.
"""

from pathlib import Path

from hfftools.cli import add_show, command_parser, number, run_main


def main() -> None:
    parser = command_parser("hff-account", __doc__)
    parser.add_argument(
        "--upstream",
        required=True,
        help="a name such as wav2vec2_large, hf:OWNER/NAME, or hf:FOLDER with a config.json",
    )
    parser.add_argument("--method", action="append", required=True, help="a method of conf/method; may be repeated")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("--seconds", type=number, default=10.0, help="length of each utterance in seconds")
    parser.add_argument("--batch", type=int, default=2, help="utterances per step")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option, over all files")
    add_show(parser)
    args = parser.parse_intermixed_args()
    from hfftools.bench import methods
    from hfftools.log import require, setup_logging
    from hfftools.meter import resources

    for name in ("seconds", "batch"):
        require(getattr(args, name) > 0, f"--{name}: {getattr(args, name)} is not above 0")
    setup_logging()
    configs = methods.configure(args.method, args.config, [f"upstream={args.upstream}", *args.overrides])
    if args.show:
        print(methods.show_all(configs), end="")
        return
    table = methods.account(configs, args.seconds, args.batch)
    print(f"{args.upstream}, a step of {args.batch} × {args.seconds:g} s. {methods.NOTE}\n")
    print("\n".join([*table, "", *resources.LEGEND]))


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
