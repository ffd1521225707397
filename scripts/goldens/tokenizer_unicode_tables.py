#!/usr/bin/env python3
"""usage: tokenizer_unicode_tables.py  -- prints the rows of models/text/unicode_tables.cpp.

Every fact is measured on the `tokenizers` library (written with 0.23.3): its regular expressions know Unicode 16, its normalization forms an older
version. Python 3.11's unicodedata (Unicode 14) is the base to compare with, the `regex` module (Unicode 16 or newer) gives the properties of what came after.
"""
import unicodedata

import regex
from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "run with Python 3.11"
CODES = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
# Scripts that split patterns name. A stand-in keeps its script when that is one of these.
SCRIPTS = "Han Hiragana Katakana Hangul Latin Greek Cyrillic Armenian Hebrew Arabic Devanagari Bengali Tamil Telugu Kannada Malayalam Thai Lao Ethiopic Common Inherited".split()


def known_to_regex():
    text = "".join(map(chr, CODES))
    split = pre_tokenizers.Split(Regex(r"\p{Cn}"), "removed")
    found = set()
    for i in range(0, len(text), 20000):
        for piece, _ in split.pre_tokenize_str(text[i : i + 20000]):
            found.update(map(ord, piece))
    return found


def property_set(pattern):
    compiled = regex.compile(pattern)
    return {c for c in CODES if compiled.match(chr(c))}


def category_map():
    out = {}
    for name in "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split():
        for c in property_set(rf"\p{{{name}}}"):
            out[c] = name
    return out


def ranges(pairs):
    """[(code, value)] sorted -> [first, last, value] of runs with equal value"""
    out = []
    for code, value in pairs:
        if out and out[-1][1] == code - 1 and out[-1][2] == value:
            out[-1][1] = code
        else:
            out.append([code, code, value])
    return out


def utf8_length(code):
    return len(chr(code).encode())


def show(name, rows, with_value=False):
    print(f"// {name}")
    cells = [f"{{0x{a:04X}, 0x{b:04X}, 0x{v:04X}}}," if with_value else f"{{0x{a:04X}, 0x{b:04X}}}," for a, b, v in rows]
    line = "   "
    for cell in cells:
        if len(line) + len(cell) > 130:
            print(line)
            line = "   "
        line += " " + cell
    print(line)


base = {c for c in CODES if unicodedata.category(chr(c)) != "Cn"}
known = known_to_regex()
now = category_map()
script_sets = {s: property_set(rf"\p{{Script={s}}}") for s in SCRIPTS}
script = {c: s for s, members in script_sets.items() for c in members}
alphabetic, upper, lower = (property_set(rf"\p{{{p}}}") for p in ("Alphabetic", "Uppercase", "Lowercase"))


def key(code, category):
    return category, script.get(code), code in alphabetic, code in upper, code in lower, utf8_length(code)


stand_in = {}
for c in sorted(base):
    if c > 0x7F and now.get(c) == unicodedata.category(chr(c)):
        stand_in.setdefault(key(c, now[c]), c)

rows = []
for c in sorted(known - base):
    category, s, *rest = key(c, now[c])
    choice = next((stand_in[k] for t in [s, None, "Common", *SCRIPTS] if (k := (category, t, *rest)) in stand_in), None)
    choice = choice or next((stand_in[k] for t in [s, None, *SCRIPTS] for a in (False, True) if (k := (category, t, a, *rest[1:])) in stand_in), None)
    assert choice, hex(c)
    rows.append((c, choice))
# Assigned after the library's version: a code point that stays unassigned for ever, of the same length in UTF-8.
never = {2: 0x0378, 3: 0xFDD0, 4: 0x1FFFE}
later = sorted(set(now) - known)
rows += [(c, never[utf8_length(c)]) for c in later]
# Category changes since Unicode 14, and U+180E, which PCRE2 takes for a space.
rows += [(0x0295, 0x0221), (0x1171E, 0x11720), (0x180E, 0x200B)]
merged = ranges(sorted(rows))
joined = []
for first, last, value in merged:  # join runs of unassigned code points over gaps that hold nothing
    if joined and value in never.values() and joined[-1][2] == value and not any(c in known or c in now for c in range(joined[-1][1] + 1, first)):
        joined[-1][1] = last
    else:
        joined.append([first, last, value])
show("kStandIns", joined, True)

changed = [c for c in base & known if unicodedata.category(chr(c)) != now.get(c)]
assert set(changed) == {0x0295, 0x1171E}, changed

strip = normalizers.StripAccents()
marks = {c for c in CODES if strip.normalize_str(chr(c)) == ""}
base_marks = {c for c in base if unicodedata.category(chr(c))[0] == "M"}
show("kMarksUnknownToNormalizer", ranges((c, 0) for c in sorted(base_marks - marks)))
print("// extra marks:", [hex(c) for c in marks - base_marks])

unknown = set()
for form in ("NFC", "NFD", "NFKC", "NFKD"):
    normalizer = getattr(normalizers, form)()
    for c in base:
        if normalizer.normalize_str(chr(c)) != unicodedata.normalize(form, chr(c)):
            unknown.add(c)
nfd = normalizers.NFD()
for c in base:
    if unicodedata.combining(chr(c)):
        text = "a\u0345" + chr(c) if c != 0x345 else "a"
        if nfd.normalize_str(text) != unicodedata.normalize("NFD", text):
            unknown.add(c)
show("kUnknownToNormalizer, beside the marks", ranges((c, 0) for c in sorted(unknown - (base_marks - marks))))

punctuation = pre_tokenizers.Punctuation("isolated")
single = set()
for i in range(0, len(CODES), 5000):
    for piece, _ in punctuation.pre_tokenize_str("".join("a" + chr(c) for c in CODES[i : i + 5000])):
        if len(piece) == 1 and piece != "a":
            single.add(ord(piece))
all_punctuation = {c for c in now if now[c][0] == "P"} | {c for c in base if unicodedata.category(chr(c))[0] == "P"}
show("kPunctuationUnknown", ranges((c, 0) for c in sorted(all_punctuation - single)))
print("// extra punctuation:", [hex(c) for c in single - all_punctuation if c > 0x7F])
