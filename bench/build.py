"""This file measures builds of many small steps beside DVC and Snakemake: cold, nothing changed, one input changed.

Each tool has the same shape, N steps that read a file each and one that joins them; ours are Python functions in a warm
worker, theirs run `cat`. Every figure is of a whole process from the shell, ours with its daemon up. The tools take
turns, in another order each round; medians, and of the ratios the median of each round's. Peers are installed below
`.cache/`, each by itself.
Run small: python bench/build.py --steps 20 --rounds 2
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from _peers import ROOT, program

BRANCHLINE = str(ROOT / ".venv" / "bin" / "branchline")
PEERS = {"dvc": "dvc==3.67.1", "snakemake": "snakemake==9.27.1"}
# At most this share of the peer's seconds.
TARGETS = {("nothing", "dvc"): 1 / 10, ("nothing", "snakemake"): 1 / 6, ("one input", "dvc"): 1 / 12}
SLOWING = {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTHONPATH"}
ENVIRON = {name: value for name, value in os.environ.items() if name not in SLOWING}
SERVICE = """\
kind = "app"
serve = { command = ["true"] }
gates = { unit = { command = ["true"] } }

[steps]
join = "joining:join"
"""


def typed(folder: Path, *argv: str) -> float:
    """Run a command to its end; the seconds that it took."""
    begun = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{argv} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return took


class Ours:
    """A repository with one service of N steps and its daemon."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.inputs = folder, folder / "fan" / "in"
        self.inputs.mkdir(parents=True)
        names = [f"step_{n:04}" for n in range(steps)]
        calls = "".join(f'{name} = "module_{name}:{name}"\n' for name in names)
        (folder / "fan" / "branchline.toml").write_text(SERVICE + calls)
        (folder / "fan" / "requirements.lock").write_text("# nothing but Python itself\n")
        (folder / "fan" / "joining.py").write_text(f"def join({', '.join(names)}):\n    return 1\n")
        for n, name in enumerate(names):
            text = f"from pathlib import Path\n\n\ndef {name}():\n    return Path('in/{n}').read_text()\n"
            (folder / "fan" / f"module_{name}.py").write_text(text)
            (self.inputs / f"{n}").write_text(f"{n}\n")
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "Begin")):
            identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.invalid")
            typed(folder, "git", *identity, *words)
        typed(folder, BRANCHLINE, "up")

    def run(self) -> float:
        """Run all steps that must run."""
        return typed(self.folder, BRANCHLINE, "run", "fan", "--no-gates")

    def end(self) -> None:
        """Stop the daemon."""
        typed(self.folder, BRANCHLINE, "down")


class Dvc:
    """A project with `dvc.yaml` of N stages."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.inputs = folder, folder / "in"
        self.inputs.mkdir(parents=True)
        rows = ["stages:"]
        for n in range(steps):
            (self.inputs / f"{n}").write_text(f"{n}\n")
            rows += [
                f"  s{n}:",
                f"    cmd: cat in/{n} > out{n}",
                "    deps:",
                f"    - in/{n}",
                "    outs:",
                f"    - out{n}",
            ]
        deps = "\n".join(f"    - out{n}" for n in range(steps))
        rows += ["  join:", "    cmd: cat out* > joined", "    deps:", deps, "    outs:", "    - joined"]
        (folder / "dvc.yaml").write_text("\n".join(rows) + "\n")
        self.program = program(PEERS["dvc"])
        typed(folder, "git", "init", "-q")
        typed(folder, self.program, "init", "-q")

    def run(self) -> float:
        """Run all stages that must run."""
        return typed(self.folder, self.program, "repro", "-q")

    def end(self) -> None:
        """Nothing runs."""


class Snakemake:
    """A Snakefile with N rules' outputs and one that joins them."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.inputs = folder, folder / "in"
        self.inputs.mkdir(parents=True)
        for n in range(steps):
            (self.inputs / f"{n}").write_text(f"{n}\n")
        (folder / "Snakefile").write_text(
            f'rule join:\n    input: expand("out/{{n}}", n=range({steps}))\n    output: "joined"\n'
            '    shell: "cat {input} > {output}"\n'
            'rule one:\n    input: "in/{n}"\n    output: "out/{n}"\n    shell: "cat {input} > {output}"\n'
        )
        self.program = program(PEERS["snakemake"])

    def run(self) -> float:
        """Run all rules that must run."""
        return typed(self.folder, self.program, "-q", "all", "--cores", "2")

    def end(self) -> None:
        """Nothing runs."""


Tool = Ours | Dvc | Snakemake
TOOLS: Mapping[str, Callable[[Path, int], Tool]] = {"ours": Ours, "dvc": Dvc, "snakemake": Snakemake}


def measured(tools: Mapping[str, Tool], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by what was asked and by tool."""
    found: dict[str, dict[str, list[float]]] = {what: {} for what in ("cold", "nothing", "one input")}
    for name, tool in tools.items():
        found["cold"][name] = [tool.run()]
    for number in range(rounds):
        for what in ("nothing", "one input"):
            for name in random.sample(sorted(tools), len(tools)):
                if what == "one input":
                    (tools[name].inputs / "3").write_text(f"changed in round {number}\n")
                found[what].setdefault(name, []).append(tools[name].run())
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=TOOLS, default=list(TOOLS))
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-build-"))
    tools = {name: TOOLS[name](home / name, chosen.steps) for name in chosen.only}
    try:
        found = measured(tools, chosen.rounds)
    finally:
        for tool in tools.values():
            tool.end()
        shutil.rmtree(home, ignore_errors=True)
    for what, seconds in found.items():
        print(f"{what}, {chosen.steps} steps and a join: " + ", ".join(
            f"{name} {statistics.median(each):.3f} s" for name, each in seconds.items()))  # fmt: skip
        for name in [each for each in seconds if each != "ours" and "ours" in seconds]:
            ratio = statistics.median(a / b for a, b in zip(seconds["ours"], seconds[name], strict=True))
            target = TARGETS.get((what, name))
            asked = f", asked at most 1/{1 / target:.0f}" if target else ""
            print(f"  ours / {name}: 1/{1 / ratio:.1f}{asked}")
    for name, each in found["cold"].items():
        step = (each[0] - statistics.median(found["nothing"][name])) / (chosen.steps + 1)
        print(f"a step executed, {name}: {step * 1000:.1f} ms")


if __name__ == "__main__":
    main()
