"""hff-datadir: check (validate) or repair (fix) a Kaldi data directory, normalise its text, or copy it at several speeds."""

from pathlib import Path

from hfftools.cli import add_show, command_parser, number, run_main


def _numbers(text: str) -> list[float]:
    """Return the numbers of a list that commas separate."""
    return [number(word) for word in text.split(",")]


def main() -> None:
    parser = command_parser("hff-datadir", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    validate = verbs.add_parser("validate", help="check that all files exist, are sorted, and have the same utterances")
    validate.add_argument("data", type=Path, help="data directory, such as data/train")
    validate.add_argument("--no-text", action="store_true", help="transcripts are not required")
    fix = verbs.add_parser("fix", help="keep the utterances that every file has; originals go to .backup/")
    fix.add_argument("data", type=Path, help="data directory, such as data/train")
    speed = verbs.add_parser("speed", help="copy every utterance at several speeds; pitch and tempo change together")
    speed.add_argument("data", type=Path, help="data directory, such as data/train")
    speed.add_argument("out", type=Path, help="data directory to write, such as data/train_sp")
    speed.add_argument("--speeds", type=_numbers, default=[0.9, 1.0, 1.1], help="factors, as 0.9,1.0,1.1")
    normalise = verbs.add_parser(
        "normalise", help="normalise case, punctuation, digits and spaces of text; originals go to .backup/"
    )
    normalise.add_argument("data", type=Path, help="data directory, such as data/train")
    normalise.add_argument("options", nargs="*", metavar="key=value", help="language, case, punctuation, numbers")
    add_show(normalise)
    args = parser.parse_args()
    from hfftools.config import resolve
    from hfftools.data import repair, validation
    from hfftools.log import setup_logging
    from hfftools.show import show
    from hfftools.text.normalise import Options

    options = resolve(Options, [], args.options) if args.verb == "normalise" else Options()
    if args.verb == "normalise" and args.show:
        return print(show(options), end="")
    setup_logging()
    if args.verb == "validate":
        count = validation.validate(args.data, need_text=not args.no_text)
        print(f"{count} utterances. Successfully validated data-directory {args.data}")
    elif args.verb == "speed":
        from hfftools.data import perturb  # imported here because it loads torch, which the other verbs do not need

        perturb.speed(args.data, args.out, args.speeds)
    else:
        kept, total = repair.fix(args.data) if args.verb == "fix" else repair.normalise_dir(args.data, options)
        print(f"{args.data}: kept {kept} utterances out of {total}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
