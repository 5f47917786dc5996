"""hff-pretrain: pre-train an encoder on the speech of data directories; run it again to resume where it stopped."""

from pathlib import Path

from hfftools.cli import add_show, command_parser, is_option, packaged_names, run_main


def main() -> None:
    parser = command_parser("hff-pretrain", __doc__)
    parser.add_argument("exp", nargs="?", default="", help="folder for the result")
    parser.add_argument("--method", help=f"a configuration: {packaged_names('pretrain')}")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option of the configuration")
    parser.add_argument("--targets-only", action="store_true", help="make the targets and stop, to train elsewhere")
    add_show(parser)
    args = parser.parse_intermixed_args()
    from hfftools.config import conf_file
    from hfftools.log import log, setup_logging
    from hfftools.pretrain.masked import configure, pretrain
    from hfftools.show import show

    files = [*([conf_file("pretrain", args.method)] if args.method else []), *args.config]
    if args.show:
        words = [args.exp] if is_option(args.exp) else []  # without a folder the first option takes its place
        print(show(configure(files, [*words, *args.overrides])), end="")
        return
    if not args.exp or is_option(args.exp):
        parser.error("name the folder for the result first, such as exp/encoder")
    setup_logging()
    log.info(f"wrote {pretrain(Path(args.exp), files, args.overrides, args.targets_only)}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
