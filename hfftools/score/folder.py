"""Score the folder of a decoded set (text, ref, utt2spk) into its score_wer/, score_cer/ and score_ter/."""

from dataclasses import dataclass
from pathlib import Path

from hfftools.data.table import read_table
from hfftools.expdir import write_text
from hfftools.log import UserError
from hfftools.score import counts, result
from hfftools.text.units import Units


@dataclass(frozen=True)
class Decoded:
    """Hold the references and hypotheses of a set, utterance by utterance, in the order of their ids."""

    folder: Path
    utts: list[str]
    speakers: list[str]
    refs: list[str]
    hyps: list[str]


def read_decoded(folder: Path | str, predictions: str = "text") -> Decoded:
    """Read the file `predictions` of a folder, its ref and, where it is there, its utt2spk.

    Without utt2spk the speaker is the utterance id up to its first dash. Raises UserError where predictions and ref do not
    have the same utterances, one has no speaker, or every reference is empty.
    """
    folder = Path(folder)
    refs = read_table(folder / "ref", value_required=False)
    hyps = read_table(folder / predictions, value_required=False)
    for here, there, lost in (
        ("ref", predictions, refs.keys() - hyps.keys()),
        (predictions, "ref", hyps.keys() - refs.keys()),
    ):
        if lost:
            raise UserError(
                f"{folder}/{here}: {len(lost)} utterances missing from {there}, first {min(lost)}; "
                "decode the set again"
            )
    if not any(text.split() for text in refs.values()):
        raise UserError(f"{folder}/ref: every reference is empty, so there is no error rate")
    utt2spk = folder / "utt2spk"
    speakers = read_table(utt2spk) if utt2spk.exists() else {utt: utt.partition("-")[0] for utt in refs}
    utts = sorted(refs)
    unnamed = [utt for utt in utts if utt not in speakers]
    if unnamed:
        raise UserError(f"{folder}/ref: {len(unnamed)} utterances missing from utt2spk, first {unnamed[0]}")
    columns = ([table[utt] for utt in utts] for table in (speakers, refs, hyps))
    return Decoded(folder, utts, *columns)


def score_dir(folder: Path | str, units: Units | None) -> dict[str, counts.Score]:
    """Score folder/text against folder/ref and return {"wer", "cer", "ter": Score}.

    Writes score_wer/, score_cer/ and score_ter/, each with result.txt, by_speaker.tsv, ref.trn and hyp.trn; no TER
    without `units`. An empty hypothesis counts as deletions, an empty reference as insertions. Raises UserError as
    `read_decoded` does.
    """
    decoded = read_decoded(folder)
    names = [f"({speaker}-{utt})" for speaker, utt in zip(decoded.speakers, decoded.utts, strict=True)]
    scores = {}
    for metric in ("wer", "cer", "ter") if units is not None else ("wer", "cer"):
        split = [[counts.tokens(metric, text, units) for text in texts] for texts in (decoded.refs, decoded.hyps)]
        alignments = counts.align(*split)
        scores[metric] = counts.score(metric, alignments, decoded.speakers)
        out = decoded.folder / f"score_{metric}"
        for name, sentences in zip(("ref", "hyp"), split, strict=True):
            lines = (" ".join([*words, trn]) for words, trn in zip(sentences, names, strict=True))
            write_text(out / f"{name}.trn", "".join(f"{line}\n" for line in lines))
        speakers = result.of_speakers(metric, alignments, decoded.speakers)
        write_text(out / "by_speaker.tsv", "".join(result.speaker_tsv(speakers)))
        by_utterance = dict(zip(decoded.utts, alignments, strict=True))
        write_text(out / "result.txt", "".join(result.report(decoded.folder, scores[metric], speakers, by_utterance)))
    return scores
