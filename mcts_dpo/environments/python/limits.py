"""The limits of code that runs along the paths of a search."""

from __future__ import annotations

from pydantic import Field

from mcts_dpo.common.settings import Settings


class PythonLimits(Settings):
    """What a block of code, and all of them together, may use.

    cpu_seconds:  CPU time of one block, in seconds (> 0). A block that takes more is killed.
    wall_seconds: time of one block, asleep or not, in seconds (> 0).
    memory_mb:    address space of one process, in MiB (≥ 64). It includes Python and the modules of `preload`; math and
                  sympy need about 90.
    total_mb:     memory of all waiting states together, in MiB (≥ 64), beyond what they share with the first process.
                  The least recently used are dropped above it.
    file_mb:      size of a file, and of all files that a path keeps, in MiB (≥ 1).
    scratch_mb:   size of the file system that all running blocks share, in MiB (≥ 1).
    output_chars: characters of output in a reply (1 to 20,000); the rest is cut.
    print_chars:  characters that a block may print (≥ 1); more is an error.
    block_chars:  characters of a block (1 to 20,000); a longer one is not run.
    live:         states that wait for a continuation, and blocks that run, together (≥ 2). The least recently used are
                  dropped; a path that needs one again is run again.
    concurrent:   blocks that run at the same time (≥ 1, and at most half of `live`); further calls wait.
    preload:      modules that are imported once, before any block. Those that are not installed are skipped, and named
                  in a warning.
    """

    cpu_seconds: float = Field(default=5.0, gt=0)
    wall_seconds: float = Field(default=10.0, gt=0)
    memory_mb: int = Field(default=1024, ge=64)
    total_mb: int = Field(default=4096, ge=64)
    file_mb: int = Field(default=16, ge=1)
    scratch_mb: int = Field(default=128, ge=1)
    output_chars: int = Field(default=2000, ge=1, le=20_000)
    print_chars: int = Field(default=1_000_000, ge=1)
    block_chars: int = Field(default=20_000, ge=1, le=20_000)
    live: int = Field(default=64, ge=2)
    concurrent: int = Field(default=8, ge=1)
    preload: tuple[str, ...] = ("math", "sympy")
