# Where the corpora are. egs/mini makes its own speech and needs none.
