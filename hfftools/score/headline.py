"""References in, the error rate that a reader should look at first out: WER, or CER where words are not spaced apart."""

from collections.abc import Iterable

from hfftools.text.normalise import unspaced


def headline(refs: Iterable[str]) -> str:
    """ "cer" where the references are unspaced text, as Chinese and Thai are written, else "wer".

    A text that was cut into words beforehand has word errors worth reading, and Korean is spaced as it is.
    """
    return "cer" if unspaced(refs) else "wer"
