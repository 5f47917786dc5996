"""hff-transcribe: transcribe recordings with a trained experiment, as text, JSON or SRT subtitles.

A recording is an audio file, a folder that is searched for them (WAV, FLAC, MP3, OGG, Opus), or - for a WAV or FLAC file
on standard input. It may have any rate, number of channels and length; long ones are cut at silences.
"""

from pathlib import Path

from hfftools.cli import add_show, command_parser, number, run_main


def main() -> None:
    parser = command_parser("hff-transcribe", __doc__)
    parser.add_argument("exp", type=Path, help="a trained experiment, such as exp/fusion")
    parser.add_argument(
        "args", nargs="*", metavar="recording | key=value", help="recordings, and options such as data.batch_seconds=60"
    )
    parser.add_argument("--format", choices=["text", "json", "srt"], default="text", help="format of the transcripts")
    parser.add_argument("--out", type=Path, help="folder for one file per recording (default: standard output)")
    parser.add_argument(
        "--max-seconds", type=number, default=20.0, help="longest piece in seconds that is transcribed at once"
    )
    parser.add_argument("--channel", type=int, help="number of the channel, from 1 on (default: the mean of all)")
    parser.add_argument("--pause", type=number, default=0.6, help="seconds of silence that end a piece")
    add_show(parser)
    args = parser.parse_intermixed_args()
    overrides = [word for word in args.args if word.partition("=")[0] in ("device", "data.batch_seconds")]
    words = [word for word in args.args if word not in overrides]
    if not words and not args.show:
        parser.error("name a recording, a folder, or - for standard input")
    from hfftools.infer.transcribe import Options, show_options, transcribe
    from hfftools.log import UserError, setup_logging

    if args.show:
        return print(show_options(args.exp, overrides), end="")
    setup_logging()
    options = Options(args.max_seconds, args.pause, args.format, args.out, args.channel)
    total, failed = transcribe(args.exp, words, overrides, options)
    if failed:
        raise UserError(f"{failed} of {total} recordings could not be transcribed; each is named above")
    if args.out:
        print(f"wrote {total} files in {args.out}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
