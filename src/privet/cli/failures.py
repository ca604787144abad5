"""What can go wrong in front of a person: one clear sentence each, that says what to do next, and an exit status."""

from collections.abc import Sequence


class Failure(Exception):  # noqa: N818 - the word the command line thinks in
    """An expected failure. The text is for the person, and says what to do next."""

    status = 1


class Mistakes(Failure):
    """Everything that is wrong with what was asked, a sentence each."""

    status = 2

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)
