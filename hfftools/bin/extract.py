"""hff-extract: load and verify an upstream; with --out, store its hidden states, so that no epoch computes them again."""

from pathlib import Path

from hfftools.cli import command_parser, number, run_main


def main() -> None:
    parser = command_parser("hff-extract", __doc__)
    parser.add_argument("--upstream", default="hff_tiny", help="name, alias or path of the upstream")
    parser.add_argument("--out", type=Path, help="folder of the cache; without it the upstream is only verified")
    parser.add_argument("--layers", default="all", help="all, last, or numbers such as 2,4,6")
    parser.add_argument(
        "--form",
        help="float16 (2 bytes a value; the default), int8 (1.06), float32 (4), or kaldi: float32 in archives that other "
        "toolkits read",
    )
    parser.add_argument(
        "--batch-seconds", type=number, default=60.0, help="seconds of audio per batch, padding included"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that load audio; 0: none")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("data", nargs="+", help="data directories")
    args = parser.parse_args()
    from hfftools.log import setup_logging
    from hfftools.train.experiment import device_of
    from hfftools.upstream.extract import extract

    setup_logging()
    layers = args.layers if args.layers in ("all", "last") else args.layers.split(",")
    extract(
        args.upstream, args.data, args.out, layers, args.batch_seconds, device_of(args.device), args.workers, args.form
    )


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
