"""hff-train: train a model by a method in an experiment's folder; run it again to resume where it stopped.

On several GPUs: torchrun --standalone --nproc-per-node 2 --no-python hff-train exp/x … train.accumulate=2
"""

from pathlib import Path

from hfftools.cli import add_show, command_parser, is_option, packaged_names, run_main


def main() -> None:
    parser = command_parser("hff-train", __doc__)
    parser.add_argument("exp", nargs="?", default="", help="the experiment's folder, such as exp/fusion")
    parser.add_argument("--method", help=f"a method: {packaged_names('method')}")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option, over all files")
    add_show(parser)
    args = parser.parse_intermixed_args()
    if args.show:
        return _show(args)
    if not args.exp or is_option(args.exp):
        parser.error("name the experiment's folder first, such as exp/fusion")
    from hfftools import dist
    from hfftools.config import conf_file
    from hfftools.log import log, setup_logging
    from hfftools.report.training_curves import training_curves
    from hfftools.train.job import train

    setup_logging()
    with dist.join():
        method = [conf_file("method", args.method)] if args.method else []
        exp = train(Path(args.exp), [*method, *args.config], args.overrides)
        if dist.is_main():
            log.info(f"wrote {exp.final}, {', '.join(str(p) for p in training_curves(exp))}")


def _show(args) -> None:
    """Print the configuration as yaml, with the comment of each option."""
    from hfftools.config import conf_file
    from hfftools.show import show
    from hfftools.train.experiment import configure

    words = [args.exp] if is_option(args.exp) else []  # without a folder the first option takes its place
    method = [conf_file("method", args.method)] if args.method else []
    print(show(configure([*method, *args.config], [*words, *args.overrides])), end="")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
