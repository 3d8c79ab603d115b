#!/usr/bin/env python3
"""No name is defined by two rooms: `symbols.py BUILD_DIR`.

Rooms are static archives.  When two of them define one name the linker may take the first it needs and say nothing, and
the other room calls a stranger.  Needs nm (binutils).
"""
import collections
import glob
import os
import subprocess
import sys

GENERATED = ("__odr_asan", "__asan", "__ubsan", "__tsan")


def main():
    where = sys.argv[1]
    archives = sorted(a for d in ("engine", "ratelimit", "connectors")
                      for a in glob.glob(os.path.join(where, d, "**", "*.a"), recursive=True))
    defined = collections.defaultdict(set)
    for archive in archives:
        out = subprocess.run(["nm", "--defined-only", "--extern-only", archive], capture_output=True, text=True,
                             check=True)
        for line in out.stdout.splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[1] in "TDBR" and not fields[2].startswith(GENERATED):
                defined[fields[2]].add(os.path.basename(archive))
    twice = {name: rooms for name, rooms in defined.items() if len(rooms) > 1}
    for name, rooms in sorted(twice.items()):
        print("%s is defined in %s" % (name, " and ".join(sorted(rooms))))
    print("%d archives, %d names, %d defined twice" % (len(archives), len(defined), len(twice)))
    sys.exit(1 if twice or len(archives) < 10 else 0)


main()
