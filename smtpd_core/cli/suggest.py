"""Guess what was meant by a word that means nothing; only asked after a mistake."""

from __future__ import annotations

from smtpd_core.cli import grammar
from smtpd_core.cli.options import OPTIONS

_MAX_WORD = 32  # longer than any word of ours; bounds the work below
_MAX_GUESSES = 4


def distance(left: str, right: str) -> int:
    """Count the letters to insert, remove, replace or swap with their neighbour."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]


def closest(word: str, known: list[str]) -> list[str]:
    """Give the known words nearest to a word: up to four, none when all are far away."""
    if not word or len(word) > _MAX_WORD:
        return []
    allowed = 1 if len(word) < 4 else 2 if len(word) < 8 else 3
    ranked = sorted((distance(word.lower(), other), other) for other in known)
    return [other for far, other in ranked if far <= min(allowed, ranked[0][0])][:_MAX_GUESSES]


def option(name: str) -> str:
    """Give the sentence to add about an option that does not exist, or nothing."""
    dashed = f"--{name.lstrip('-')}"
    meant = [known for known in OPTIONS if len(dashed) > 2 and known.startswith(dashed)]
    return _question(meant or closest(dashed, list(OPTIONS)))


def command(error: grammar.GrammarError, program: str) -> str:
    """Give the sentence to add about words that are no command, or nothing."""
    if error.word is None:
        return "" if error.path else f"{program} --help shows what the words mean"
    known = len(error.path)
    before, rest = error.words[:known], error.words[known + 1 :]
    keywords = [child for child in grammar.walk(before).children() if child[0] not in "<."]
    guesses = grammar.candidates(error.path, keywords, error.word) if error.word else []
    guesses = guesses or closest(error.word, keywords)
    lines = [[*before, guess, *rest] for guess in guesses]
    likely = [line for line in lines if _leads_somewhere(line)] or lines
    return _question([" ".join((program, *line)) for line in likely])


def _leads_somewhere(words: list[str]) -> bool:
    try:
        grammar.walk(words)
    except grammar.GrammarError:
        return False
    return True


def _question(guesses: list[str]) -> str:
    if not guesses:
        return ""
    *most, last = guesses[:_MAX_GUESSES]
    return f"did you mean {', '.join(most)} or {last}?" if most else f"did you mean {last}?"
