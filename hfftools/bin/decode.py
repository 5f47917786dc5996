"""hff-decode: decode the test sets of experiments, and score them, in exp/<name>/decode/<set>/.

The search is greedy unless search.name=beam, whose results are in <set>_beam or, with search.lm=FILE, in <set>_beam_lm.
If search.lm_weight and search.word_score are not given, they are chosen on the experiment's dev set. Experiments with the
same upstream hold it in memory once. With --choose a table says which experiment decodes which utterance.
"""

from pathlib import Path

from hfftools.cli import add_show, command_parser, run_main, split_words


def main() -> None:
    parser = command_parser("hff-decode", __doc__)
    parser.add_argument("args", nargs="*", metavar="exp | key=value", help="experiments, search.… and harmless options")
    parser.add_argument("--data", action="append", default=[], help="data directory; without, those of the experiment")
    parser.add_argument("--config", type=Path, action="append", default=[], help="yaml file with a part `search`")
    parser.add_argument("--choose", type=Path, help="table of `utterance experiment`: which experiment decodes which")
    parser.add_argument("--out", type=Path, help="folder for what is decoded with --choose, a folder a set in it")
    add_show(parser)
    parser.add_argument("--searches", type=Path, help="training configuration: print the searches that its task offers")
    args = parser.parse_intermixed_args()
    if args.searches:
        from hfftools.infer.search_weights import offered

        return print(*offered(args.searches))
    if (args.choose is None) != (args.out is None) or args.choose and not args.data:
        parser.error("--choose, --out and --data go together")
    roots, searching, others = split_words(args.args, "search")
    if args.choose and (searching or args.config):
        parser.error("--choose decodes greedily; leave search out")
    if not roots and not args.show:
        parser.error("name an experiment, such as exp/fusion")
    from hfftools.decode.search import Root, configure
    from hfftools.infer.decode_sets import decode, decode_chosen, read_scores
    from hfftools.log import setup_logging
    from hfftools.show import show

    if args.show:
        return print(show(Root(configure(args.config, searching))), end="")
    setup_logging()
    if args.choose:
        folders = decode_chosen(roots, args.choose, args.data, args.out, others)
    else:
        folders = decode(roots, args.data, others, configure(args.config, searching))
    for folder in folders:
        for score in read_scores(folder).values():
            print(score.line(folder))
        print(f"wrote {folder}")


def cli() -> None:
    run_main(main)


if __name__ == "__main__":
    cli()
