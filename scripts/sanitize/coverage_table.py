"""Lines that ran, by folder: reads what `llvm-cov export -summary-only` writes. usage: coverage_table.py ROOT FILES, of which FILES are listed with the most lines missed"""
import collections, json, pathlib, sys

FOLDERS = ("common", "quant", "models", "calibration", "eval", "pipeline")


def main():
    root, most = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    lines, missed = collections.defaultdict(lambda: [0, 0]), []
    for file in json.load(sys.stdin)["data"][0]["files"]:
        name = pathlib.Path(file["filename"])
        if not name.is_relative_to(root): continue
        name = name.relative_to(root)
        if name.parts[0] not in FOLDERS: continue
        count, covered = file["summary"]["lines"]["count"], file["summary"]["lines"]["covered"]
        for key in (name.parts[0], "all"):
            lines[key][0] += count
            lines[key][1] += covered
        missed.append((count - covered, count, str(name)))
    print(f"{'folder':<14}{'lines':>8}{'ran':>8}{'share':>8}")
    for key in (*FOLDERS, "all"):
        count, covered = lines[key]
        print(f"{key:<14}{count:>8}{covered:>8}{100 * covered / max(1, count):>7.1f}%")
    for not_run, count, name in sorted(missed, reverse=True)[:most]: print(f"{not_run:>6} of {count:<6} {name}")


main()
