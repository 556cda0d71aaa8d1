"""What is wrong with a command line, in one line."""

import re


def usage_line(box: str, command: str) -> str:
    """One line from the box that tyro draws around what is wrong with a command line.

    Parameters
    ----------
    box : str
        A title, then sections with rules between them, in box-drawing characters or, where those cannot be
        printed, in dashes. Sections and deeper lines that are an option's help are left out.
    command : str
        Whose --help says more.

    Returns
    -------
    str
        What was wrong, what may have been meant, and where more is said.

    Examples
    --------
    >>> print(usage_line('''
    ... ╭─ Unrecognized options ─────────────────────╮
    ... │ Unrecognized options: --hiden-size         │
    ... │ ────────────────────────────────────────── │
    ... │ Perhaps you meant:                         │
    ... │     --hidden-size INT                      │
    ... │         Hidden units. (default: 128)       │
    ... │ ────────────────────────────────────────── │
    ... │ For full helptext, run gatewise --help     │
    ... ╰────────────────────────────────────────────╯''', "gatewise train digits"))
    Unrecognized options: --hiden-size; Perhaps you meant: --hidden-size INT; see gatewise train digits --help
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line[2:].rstrip(" │")  # after the frame
        if line.startswith(("╭", "╰")) or set(text) in ({"─"}, {"-"}):
            sections.append([])
        elif text and not text.startswith(" " * 8):  # deeper lines are an option's help
            sections[-1].append(text.strip())
    kept = [" ".join(section).rstrip(".") for section in sections[1:] if section and "helptext" not in section[0]]
    text = "; ".join(kept) or " ".join(box.split())
    text = re.sub(
        r"no type matching .* could be instantiated from \[(.*?)\].*?`\[bold\](.*?)\[/bold\]`.*",
        r"given is \1, needed is \2",
        text,
    )
    text = re.sub(r"Error parsing (__tyro\S*|[A-Z]\w*): ", "", text)  # the message of a setting's own check says it all
    text = re.sub(r"invalid literal for int\(\) with base 10: ", "needed is a whole number, given ", text)
    text = re.sub(r"could not convert string to float: ", "needed is a number, given ", text)
    return f"{text}; see {command} --help"
