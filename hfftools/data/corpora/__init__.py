"""One module a corpus: `sets(source, out, limit)` gives {set name: utterances} from the corpus in its own layout.

A module with a `URL` can be downloaded: an archive that holds the corpus in one folder.
"""
