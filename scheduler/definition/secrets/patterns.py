"""Patterns of secrets that show by themselves: values behind secret names, and known forms."""

import re
from collections.abc import Callable

from scheduler.definition.secrets.names import HINTS, MASK, is_secret_name, like_a_secret

_NAME = re.compile(r"""(?<!\w)(?<!\w-)([A-Za-z_][\w-]{0,63}+)\\{0,3}["']?\s{0,3}(:|=>?)(\s{0,3})""")
"""A name, with the text between it and its value."""
_FLAG = re.compile(
    r"""(?<![\w-])--?([A-Za-z][\w-]{0,63}+)(?:\s{1,3}|\\{0,3}["']\s{0,3},\s{0,3}(?=\\{0,3}["']))(?=[^\s-])"""
)
"""Flags such as ``--password X``, also in a list of arguments."""
_SAID = re.compile(
    r"""(?:(?:(?:pass(?:word|phrase|wd|code)|token|pwd|otp)s?["']?)
      (?:\s{1,3}(?P<verb>is|was)\s{1,3} | \s{1,3}(?=\\{0,3}["']))
    | (?:secret|credential|(?:api|access|private|license|ssh)[ _-]?key)s?["']?
      \s{1,3}(?P<other>is|was)\s{1,3})""",
    re.VERBOSE | re.IGNORECASE,
)
"""Prose such as ``the password is X`` and ``invalid token "X"``."""
_MAY_SAY = re.compile(r"""\s(?:(?:is|was)\s|\\{0,3}["'])""")
"""A part of every match of `_SAID`, quicker to look for."""
_OF_PROSE = frozenset(
    {
        *(
            "and",
            "are",
            "as",
            "can",
            "cannot",
            "expects",
            "flag",
            "for",
            "from",
            "given",
            "has",
            "if",
            "in",
            "is",
        ),
        *(
            "may",
            "missing",
            "must",
            "needs",
            "not",
            "of",
            "on",
            "option",
            "or",
            "required",
            "requires",
            "should",
        ),
        *("to", "value", "was", "when", "with", "without"),
    }
)
"""Words that follow a flag in a message about the flag."""
_VALUE = re.compile(
    r"""
    "(?:[^"\\]|\\.)*+"?
    | '(?:[^'\\]|\\.)*+'?
    | \\{1,3}(["'])(?:(?!\\{1,3}\1).)*+(?:\\{1,3}\1)?
    | (?P<scheme>(?:Bearer|Basic|Digest|Token|AWS4-HMAC-SHA256)\s{1,3})?
      [^\s,;&"'<>()\[\]{}:\\] [^\s,;&"'<>()\[\]{}\\]*+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_QUOTE = re.compile(r"""\\*["']""")
_BY_ITSELF = re.compile(
    r"""
    \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    | (?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+
    | -----BEGIN\ [A-Z ]{0,30}?PRIVATE\ KEY-----(?:(?!-----END).)*+(?:-----END[A-Z ]{0,40}-----)?
    | (?<=\bBearer\ )(?=[A-Za-z_.~+/=-]{0,64}\d)[\w.~+/=-]{16,}+
    | (?<![\w-])(?:gh[opusr]_|github_pat_|glpat-|xox[abeprs]-|hvs\.|AIza)[\w-]{16,}+
    """,
    re.VERBOSE | re.DOTALL,
)
"""Secrets by their form: ids of access keys, tokens of well-known services, keys."""
_MARKS = ("AKIA", "ASIA", "eyJ", "PRIVATE KEY", "Bearer ", "gh", "glpat-", "xox", "hvs.", "AIza")
"""Parts of which every match of `_BY_ITSELF` has at least one."""
_SHORTEST_SAID = 6
_MOST_VALUES = 1_000
"""Values that are masked in a text one by one; the text behind them is masked as a whole."""


def may_tell(text: str) -> bool:
    """Whether `mask_named` has to look at a text more closely, or at any part of it."""
    return any(map(text.__contains__, _MARKS)) or any(map(text.lower().__contains__, HINTS))


def mask_named(text: str) -> str:
    """Return ``text`` with the values behind secret names in it masked.

    These are ``password=...``, ``"api_key": "..."``, ``Authorization: Bearer ...``, ``--password ...``, ``the
    password is ...``, also within quoted JSON; and secrets in a known form. Prose stays (``token: expected a
    string``): behind a colon and a space, or the word ``is``, only quoted text, or text with a digit, counts
    as a value. Linear in the length of the text.
    """
    if any(map(text.__contains__, _MARKS)):
        text = _BY_ITSELF.sub(MASK, text)
    if not any(map(text.lower().__contains__, HINTS)):
        return text
    if "=" in text or ":" in text:
        text = _masked_behind(text, _NAME, _is_name, _is_assigned)
    if "-" in text:
        text = _masked_behind(text, _FLAG, _is_flag, _is_argument)
    if _MAY_SAY.search(text):
        text = _masked_behind(text, _SAID, _is_noun, _is_said)
    return text


def _masked_behind(
    text: str,
    pattern: re.Pattern[str],
    is_name: Callable[[re.Match[str]], bool],
    is_value: Callable[[re.Match[str], re.Match[str]], bool],
) -> str:
    """Return ``text`` with the values behind matches of ``pattern`` masked, if both functions agree.

    Text that is found to be no value must be short, or have a space before its next name: the time would be
    quadratic otherwise.
    """
    parts: list[str] = []
    done = 0
    for match in pattern.finditer(text):
        if match.start() < done or not is_name(match):
            continue
        value = _VALUE.match(text, match.end())
        if value is None or not is_value(match, value):
            continue
        shown = value[0]
        quote = _QUOTE.match(shown)
        frame = quote[0] if quote else value["scheme"] or ""
        end = frame if quote and shown.endswith(frame) and len(shown) > len(frame) else ""
        parts += (text[done : match.end()], frame, MASK, end)
        done = value.end()
        if len(parts) > 4 * _MOST_VALUES:
            # Rather too much than too slow: nobody reads that many.
            return "".join((*parts, MASK))
    return "".join((*parts, text[done:])) if parts else text


def _is_name(match: re.Match[str]) -> bool:
    # Not within a path, such as arn:aws:secret:db.
    return is_secret_name(match[1]) and not (
        match[2] == ":" and match.string[match.start() - 1 : match.start()] == ":"
    )


def _is_assigned(match: re.Match[str], value: re.Match[str]) -> bool:
    spaced = match[2] == ":" and match[3] and value["scheme"] is None and not _is_quoted(value)
    return not spaced or like_a_secret(value[0])


def _is_flag(match: re.Match[str]) -> bool:
    return is_secret_name(match[1])


def _is_argument(_match: re.Match[str], value: re.Match[str]) -> bool:
    return value[0].lower() not in _OF_PROSE


def _is_noun(_match: re.Match[str]) -> bool:
    return True


def _is_said(match: re.Match[str], value: re.Match[str]) -> bool:
    said = value[0].strip("\\\"'")
    if match["verb"] is None and match["other"] is None:
        return like_a_secret(said)
    return _is_quoted(value) or (len(said) >= _SHORTEST_SAID and any(map(said.__contains__, "0123456789")))


def _is_quoted(value: re.Match[str]) -> bool:
    return _QUOTE.match(value[0]) is not None
