"""hff-probe: an upstream and transcribed speech in, the error rate of a linear CTC probe on each of its layers out."""

import argparse
from pathlib import Path

from hfftools.log import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="hff-probe", description=__doc__)
    parser.add_argument("--upstream", help="name, alias or path of the upstream; hff_tiny where not given")
    parser.add_argument("--out", type=Path, help="folder for the result; exp/probe_<upstream> where not given")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any option: train=data/train dev=data/dev")
    args = parser.parse_intermixed_args()
    from hfftools.analysis.probe import probe
    from hfftools.log import setup_logging

    setup_logging()
    overrides = [*([f"upstream={args.upstream}"] if args.upstream else []), *args.overrides]
    exp = probe(args.out, args.config, overrides)
    print(exp.table.read_text(), end="")
    print(f"wrote {exp.probe}, {exp.table}, {exp.layers_image}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
