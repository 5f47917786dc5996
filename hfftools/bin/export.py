"""hff-export: write a trained experiment as one ONNX file, which returns its posteriors wherever ONNX Runtime runs."""

from pathlib import Path

from hfftools.cli import command_parser, run_main


def main() -> None:
    parser = command_parser("hff-export", __doc__)
    parser.add_argument("exp", type=Path, help="a trained experiment, such as exp/fusion")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, such as fusion.onnx")
    args = parser.parse_args()
    from hfftools.infer.export import export
    from hfftools.log import setup_logging

    setup_logging()
    print(f"wrote {export(args.exp, args.out)}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
