"""Run a compiler and keep its remarks: ``python compile_kernel.py REMARKS_FILE COMMAND...``.

Remarks (registers, spills, memory) and the seconds taken go to the file; errors go on to the terminal.
"""

import re
import resource
import subprocess
import sys
from pathlib import Path

# Of clang, behind " remark: "; of ptxas, whole lines.
_REMARK = re.compile(r" remark: (.*)$|^(ptxas info .*)$|^\s*(\d+ bytes stack frame.*)$")


def main(remarks: Path, command: list[str]) -> int:
    """Return the command's status."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.stdout.write(done.stdout)
        return done.returncode
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    matches = [match for line in done.stdout.splitlines() if (match := _REMARK.search(line))]
    lines = [match.group(match.lastindex or 0).strip() for match in matches]
    seconds = usage.ru_utime + usage.ru_stime
    remarks.write_text("\n".join((*lines, f"CPU seconds: {seconds:.1f}", f"Peak KiB: {usage.ru_maxrss}", "")))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
