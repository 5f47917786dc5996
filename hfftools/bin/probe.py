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

    name = args.upstream or "hff_tiny"
    out = args.out or Path("exp") / f"probe_{Path(name).stem.replace(':', '_')}"
    setup_logging(out / "log.txt")
    probe(out, args.config, [f"upstream={name}", *args.overrides])
    print((out / "table.txt").read_text(), end="")
    print(f"wrote {out}/probe.json, {out}/table.txt, {out}/layers.png")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
