"""Choose the main error rate of a set: WER, or CER where the writing system puts no space between words."""

from collections.abc import Iterable

from hfftools.text.normalise import unspaced


def headline(refs: Iterable[str]) -> str:
    """Return "cer" where the references are unspaced text, as Chinese and Thai are written, else "wer".

    Chinese text that was segmented into words beforehand has a meaningful WER, and Korean is written with spaces.
    """
    return "cer" if unspaced(refs) else "wer"
