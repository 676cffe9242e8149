"""The languages of Whisper, in the order of their tokens.

Codes, English names, aliases, and the languages written without spaces. Token IDs depend on the
checkpoint and are in `batched_whisper.tokens.tokenizer`.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType

from batched_whisper.config.options import LANGUAGE_PER_WINDOW
from batched_whisper.errors import OptionError

_IN_ORDER = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese,
pt portuguese, tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian,
id indonesian, hi hindi, fi finnish, vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay,
cs czech, ro romanian, da danish, hu hungarian, ta tamil, no norwegian, th thai, ur urdu,
hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh, sk slovak,
te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian,
kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian,
ne nepali, mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi,
pa punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan,
ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao,
uz uzbek, fo faroese, ht haitian creole, ps pashto, tk turkmen, nn nynorsk, mt maltese,
sa sanskrit, lb luxembourgish, my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese,
tt tatar, haw hawaiian, ln lingala, ha hausa, ba bashkir, jw javanese, su sundanese,
yue cantonese
"""

LANGUAGES = MappingProxyType(
    {code: name for code, _, name in (e.strip().partition(" ") for e in _IN_ORDER.split(","))}
)
"""Code -> English name, all 100, in Whisper's order; ``yue`` came with large-v3."""

WITHOUT_SPACES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages written without spaces between words; openai/whisper leaves out ``bo`` and ``km``."""

ALIASES = MappingProxyType(
    {
        "burmese": "my",
        "castilian": "es",
        "filipino": "tl",
        "flemish": "nl",
        "haitian": "ht",
        "jv": "jw",
        "letzeburgesch": "lb",
        "mandarin": "zh",
        "moldavian": "ro",
        "moldovan": "ro",
        "panjabi": "pa",
        "pushto": "ps",
        "sinhalese": "si",
        "valencian": "ca",
    }
)
"""Other names -> code."""

_BY_NAME = MappingProxyType({**{name: code for code, name in LANGUAGES.items()}, **ALIASES})


def language_code(text: str) -> str:
    """Return the code of a language from a code, a name or a tag such as ``pt-BR``, in any case.

    Raises:
        OptionError: Whisper does not know the language; the message suggests similar ones.
    """
    asked = text.strip().lower()
    for spelling in (asked, asked.replace("_", "-").partition("-")[0]):
        if spelling in LANGUAGES:
            return spelling
        if spelling in _BY_NAME:
            return _BY_NAME[spelling]
    near = difflib.get_close_matches(asked, [*_BY_NAME, *LANGUAGES], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "give a code such as en, or a name"
    raise OptionError(f"language={text!r} is unknown to Whisper; {hint}")


def language_code_or_none(option: str | None) -> str | None:
    """Return the code of the option ``language``; None if the language is to be detected.

    Raises:
        OptionError: Whisper does not know the language.
    """
    if option is None or option == LANGUAGE_PER_WINDOW:
        return None
    return language_code(option)


def known_language(text: str | None) -> str | None:
    """Return the code of a language in foreign data; None if Whisper does not know it."""
    try:
        return language_code_or_none(text)
    except OptionError:
        return None
