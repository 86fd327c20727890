"""Requests the server understands and refuses."""


class Refusal(Exception):
    """Becomes an answer with `status` and one sentence: `{"detail": …}`, and `{"message": …}` in the 2025 edition."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
