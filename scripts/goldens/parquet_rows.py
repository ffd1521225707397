#!/usr/bin/env python3
"""usage: scripts/goldens/parquet_rows.py  -- writes tests/data/parquet/*.parquet, and beside each the rows that pyarrow (26.0.1) reads from it

NAME.jsonl has a line for each row of to_pylist(): decimals, dates and times as str() prints them, bytes as the text that they spell, floats that are no JSON
numbers as {"float": "nan"}. types: every kind of column in row groups of 3 and all codecs; plain: without Arrow's own schema, pages of version 2;
many: 10 000 rows, of which the .jsonl has the first, the last and every 997th in between, with their place. runs: 40 million times one word, in runs; no .jsonl.
"""
import datetime as dt
import decimal
import json
import math
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "parquet"
UTC = dt.timezone.utc
TEXTS = ["plain", "", None, "Grüße, 世界 🙂", 'quotes " and \n lines', "tail", "x" * 40]
D = decimal.Decimal


def column(values, kind): return pa.array(values, type=kind)


def types():
    days = [dt.date(1970, 1, 1), dt.date(2024, 2, 29), None, dt.date(1969, 12, 31), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1900, 3, 1)]
    moments = [dt.datetime(2024, 1, 31, 23, 59, 59), dt.datetime(1969, 12, 31, 23, 59, 59, 500000), None, dt.datetime(1970, 1, 1), dt.datetime(2001, 9, 9, 1, 46, 40, 1),
               dt.datetime(1582, 10, 15, 12), dt.datetime(2262, 1, 1, 0, 0, 1)]
    whole = [m and m.replace(microsecond=0) for m in moments]
    clocks = [dt.time(0, 0), dt.time(23, 59, 59), None, dt.time(12, 30, 1), dt.time(1, 2, 3), dt.time(0, 0, 59), dt.time(13, 0)]
    lists = [["a", "b"], [], None, [None], ["Ω", "", "c"], ["d"], ["e"] * 3]
    chats = [[{"role": "user", "content": "hi"}], [], None, [{"role": "user", "content": None}, None], [{"role": "a", "content": "b"}] * 2, [{"role": None, "content": "é"}], []]
    columns = {
        "none": column([None] * 7, pa.null()),
        "flag": column([True, False, None, True, True, False, False], pa.bool_()),
        "i8": column([-128, 127, None, 0, 1, 2, 3], pa.int8()), "i16": column([-32768, 32767, None, 0, 1, 2, 3], pa.int16()),
        "i32": column([-2**31, 2**31 - 1, None, 0, 1, 2, 3], pa.int32()), "i64": column([-2**63, 2**63 - 1, None, 0, 1, 2, 3], pa.int64()),
        "u8": column([255, 0, None, 1, 2, 3, 4], pa.uint8()), "u16": column([65535, 0, None, 1, 2, 3, 4], pa.uint16()),
        "u32": column([2**32 - 1, 0, None, 1, 2, 3, 4], pa.uint32()), "u64": column([2**64 - 1, 0, None, 1, 2, 3, 4], pa.uint64()),
        "f16": column([0.5, -65504.0, None, math.nan, math.inf, 6e-8, 0.1], pa.float16()), "f32": column([0.1, -1e38, None, math.nan, -math.inf, 1e-45, 3.0], pa.float32()),
        "f64": column([0.1, 1e308, None, math.nan, math.inf, 5e-324, -0.0], pa.float64()),
        "string": column(TEXTS, pa.string()), "large_string": column(TEXTS, pa.large_string()), "string_view": column(TEXTS, pa.string_view()),
        "binary": column([t and t.encode() for t in TEXTS], pa.binary()), "large_binary": column([t and t.encode() for t in TEXTS], pa.large_binary()),
        "fixed": column([b"abc", b"def", None, b"   ", b"xyz", b"123", b"end"], pa.binary(3)),
        "dictionary": column(TEXTS, pa.string()).dictionary_encode(), "levels": pa.DictionaryArray.from_arrays(column([1, 0, None, 2, 2, 1, 0], pa.int8()), column(["low", "mid", "high"], pa.string())),
        "decimal": column([D("1.20"), D("-0.05"), None, D("0.00"), D("12345678.90"), D("1.00"), D("-7.50")], pa.decimal128(12, 2)),
        "small_decimal": column([D("1E-9"), D("-1.5E-8"), None, D("0E-9"), D("0.123456789"), D("1E-7"), D("0.000001")], pa.decimal128(20, 9)),
        "wide_decimal": column([D(10) ** 40, D(-1), None, D(0), D(7), D(10) ** 49, D(3)], pa.decimal256(60, 0)),
        "date32": column(days, pa.date32()), "date64": column(days, pa.date64()),
        "time32": column(clocks, pa.time32("ms")), "time64": column([c and c.replace(microsecond=250) for c in clocks], pa.time64("us")),
        "second": column(whole, pa.timestamp("s")), "milli": column(moments[:2] + [None] + whole[3:], pa.timestamp("ms")), "micro": column(moments, pa.timestamp("us")),
        "utc": column([m and m.replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "UTC")),
        "east": column([m and m.replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "+05:30")), "west": column([m and m.replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "-03:00")),
        "duration": column([dt.timedelta(seconds=1), dt.timedelta(days=-1, hours=1), None, dt.timedelta(0), dt.timedelta(days=1, microseconds=5), dt.timedelta(days=400, hours=13),
                            dt.timedelta(microseconds=-1)], pa.duration("us")),
        "list": column(lists, pa.list_(pa.string())), "large_list": column(lists, pa.large_list(pa.string())),
        "pair": column([[1, 2], [3, 4], None, [5, None], [6, 7], [8, 9], [0, 0]], pa.list_(pa.int64(), 2)), "deep": column([[[1], []], [], None, [[2, None]], [None], [[3]], [[4, 5]]], pa.list_(pa.list_(pa.int32()))),
        "choices": column([{"text": ["one", "two"], "label": ["A", "B"]}, {"text": [], "label": None}, None, {"text": ["x"], "label": ["C"]}] * 2, pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))]))[:7],
        "chat": column(chats, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        "map": column([[("a", 1), ("b", None)], [], None, [("c", 3)], [("d", 4)], [], [("e", 5)]], pa.map_(pa.string(), pa.int64())),
    }
    codecs = ["NONE", "SNAPPY", "ZSTD", "GZIP", "LZ4", "BROTLI"]
    paths = {name: codecs[i % len(codecs)] for i, name in enumerate(columns)}
    return pa.table(columns), dict(row_group_size=3, compression=paths, use_dictionary=["string", "dictionary", "levels"])


def plain():
    table = pa.table({"question": column(["1 + 1?", "2 + 2?", "Ist 3 eine Primzahl?"], pa.string()), "answer": column(["2", "4", None], pa.string()), "score": column([1, 2, 3], pa.int64()),
                      "choices": column([["1", "2"], ["4"], []], pa.list_(pa.string()))})
    return table, dict(store_schema=False, data_page_version="2.0", compression="SNAPPY")


def many():
    n = 10_000
    table = pa.table({"i": column(list(range(n)), pa.int64()), "word": column([f"w{i % 7}" for i in range(n)], pa.string())})
    return table, dict(row_group_size=2500, compression="ZSTD", use_dictionary=["word"], column_encoding={"i": "DELTA_BINARY_PACKED"})


def runs():
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000_000, type=pa.int32()), ["again"])
    return pa.table({"word": pa.chunked_array([word] * 4)}), dict(row_group_size=10_000_000, compression="ZSTD", data_page_size=1 << 26, store_schema=False, max_rows_per_page=10_000_000)


def shown(value):
    if isinstance(value, dict): return {k: shown(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [shown(v) for v in value]
    if isinstance(value, bytes): return value.decode()
    if isinstance(value, float) and not math.isfinite(value): return {"float": str(value)}
    if isinstance(value, (decimal.Decimal, dt.date, dt.time, dt.timedelta)): return str(value)
    return value


OUT.mkdir(parents=True, exist_ok=True)
for make in (types, plain, many, runs):
    table, options = make()
    path = OUT / f"{make.__name__}.parquet"
    pq.write_table(table, path, **options)
    if make is runs:
        print(path, path.stat().st_size)
        continue
    rows = [shown(row) for row in pq.read_table(path).to_pylist()]
    if make is many: rows = [dict(place=i, row=rows[i]) for i in sorted({0, len(rows) - 1, *range(0, len(rows), 997)})]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
    print(path, path.stat().st_size, len(rows))
