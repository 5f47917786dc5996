"""hff-probe: measure on transcribed speech what each layer of an upstream encodes: words, phones, speakers, geometry.

Without data it takes what a recipe made in data/ or, if there is none, synthesises a small set, and logs which. The folder
that it writes has index.html, table.txt, probe.json, pictures and recommendation.yaml for `hff-train --config`.
"""

from pathlib import Path

from hfftools.cli import add_show, command_parser, run_main


def main() -> None:
    parser = command_parser("hff-probe", __doc__)
    parser.add_argument("--upstream", help="name, alias or path of the upstream (default: hff_tiny)")
    parser.add_argument("--out", type=Path, help="folder for the result (default: exp/probe_<upstream>)")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file; later ones win")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="any option: train=data/train dev=data/dev units=data/units features=exp/feats parts=[asr,phone,speaker,"
        "similarity,geometry] layers=[0,4,8] phones=espeak:en-us phones=lexicon.txt head=conformer epochs=20",
    )
    add_show(parser)
    args = parser.parse_intermixed_args()
    from hfftools.log import setup_logging
    from hfftools.probe.job import configure, probe
    from hfftools.show import show

    overrides = [*([f"upstream={args.upstream}"] if args.upstream else []), *args.overrides]
    if args.show:
        print(show(configure(args.config, overrides)), end="")
        return
    setup_logging()
    exp = probe(args.out, args.config, overrides)
    print(exp.table.read_text(), end="")
    print(f"wrote {exp.page}, {exp.table}, {exp.probe}")
    if exp.recommendation.exists():
        print(f"to train on the recommended layers: hff-train exp/fusion --config {exp.recommendation}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
