"""The rows of a run with their ratios to specmm's, and what each rival held."""

SLACK = 4 << 20


def show(found, memory, bound, *, markdown):
    """Prints both tables; a row where specmm loses says so."""
    # "hot random, os.pread, 2 threads" is compared with "hot random, specmm, 2 threads".
    lines = []
    for name, result in found.items():
        scenario, _, rest = name.partition(", ")
        threads = ", 2 threads" if rest.endswith(", 2 threads") else ""
        rival = rest.removesuffix(threads)
        mine = found.get(f"{scenario}, specmm{threads}")
        ratio = result.median() / mine.median() if mine is not None else float("nan")
        # Less than a twentieth is nothing on any machine.
        verdict = "" if rival == "specmm" or ratio >= 0.95 else "specmm loses"
        lines.append(
            (
                scenario + threads,
                rival,
                f"{result.median() * 1e6:.2f}",
                f"{min(result.get_values()) * 1e6:.2f}-{max(result.get_values()) * 1e6:.2f}",
                f"{ratio:.2f}",
                verdict,
            )
        )
    groups = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: groups.index(line[0]))
    _print(("scenario", "through", "us a read", "(min-max)", "vs specmm", ""), lines, markdown=markdown)
    print()
    held = []
    for name, peak in memory.items():
        if peak is None:
            held.append((name, "failed", "-"))
        else:
            held.append((name, f"{peak / (1 << 20):.1f} MiB", "yes" if peak <= bound + SLACK else "no"))
    _print(("through", f"peak, bound {bound >> 20} MiB", "held"), held, markdown=markdown)


def _print(headings, lines, *, markdown):
    if markdown:
        for line in (headings, ["---"] * len(headings), *lines):
            print(f"| {' | '.join(line)} |")
        return
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for line in (headings, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
