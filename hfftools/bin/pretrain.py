"""hff-pretrain: data directories in, an encoder of our own out; run it again to go on where it stopped."""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-pretrain", description=__doc__)
    parser.add_argument("exp", type=Path, help="folder for the result")
    parser.add_argument("--method", help="a configuration of conf/pretrain, such as hff_tiny")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option of the configuration")
    args = parser.parse_intermixed_args()
    from hfftools.config import conf_file
    from hfftools.log import log, setup_logging
    from hfftools.pretrain.masked import pretrain

    setup_logging()
    files = [*([conf_file("pretrain", args.method)] if args.method else []), *args.config]
    log.info(f"wrote {pretrain(args.exp, files, args.overrides)}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
