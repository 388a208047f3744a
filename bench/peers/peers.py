"""Times Nearfield beside what else one could use, in turns; started by bench/run.sh peers."""
import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import timing


def find_library(tool):
    """libnearfield.so of a build folder, or of the prefix that the program is installed in."""
    folder = Path(tool).resolve().parent
    for path in (folder / ".libs/libnearfield.so", folder / "../lib/libnearfield.so"):
        if path.exists():
            return path
    return "libnearfield.so.0"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("attention", "pictures"))
    parser.add_argument("--tool", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default=".")
    parser.add_argument("--csv", required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    timing.repeats = arguments.repeats
    counts = sorted({1, arguments.threads}) if not arguments.quick else [arguments.threads]

    def wanted(name):
        return re.search(arguments.only, name) is not None

    table = timing.Table()
    if arguments.part == "attention":
        try:
            import attention  # PyTorch's OpenMP is loaded first, and serves both sides
        except ImportError as error:
            table.skip("PyTorch", error)
        else:
            import nearfield
            library = nearfield.load(find_library(arguments.tool))
            program = os.path.join(sys.prefix, "bin", "onednn")
            for threads in counts:
                attention.compare(table, timing, library, threads, wanted, program)
    else:
        import pictures
        with tempfile.TemporaryDirectory() as folder:
            for threads in reversed(counts):
                pictures.compare(table, timing, pictures.Tool(arguments.tool, threads, folder), wanted, arguments.quick)
    table.finish(arguments.csv)


main()
