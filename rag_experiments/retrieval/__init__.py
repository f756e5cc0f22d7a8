"""Finding passages: by vectors, by words, by both."""

import logging

# Both tell at every start how they load and what they build, faiss that it tried libraries that are not there.
for _name in ("faiss.loader", "bm25s"):
    logging.getLogger(_name).addFilter(lambda record: record.levelno >= logging.WARNING)
