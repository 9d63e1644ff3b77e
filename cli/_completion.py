"""What the shell offers for the values of options, and where bash breaks words.

A callback lists values: the choices of the library's own types, or names that come with it. It imports neither torch nor
onnxruntime, and what it imports beyond the command line itself only when it is asked.

Bash breaks the word under the cursor at colons and equals signs and completes the last part alone, so `--data function:ai` would
reach Typer as four words. `CompletingGroup` joins them before Typer reads them; the part that bash considers done is cut off
again from what is offered.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from mncompress.types import ACTS, TrainConfig

from ._errors import CommandGroup

VARIABLE = "_MNCOMPRESS_COMPLETE"
"""The environment variable with which a shell asks."""
DONE = "_MNCOMPRESS_DONE"
"""What precedes, in the word under the cursor, the part that is completed."""
BREAKS = ":="
PROVIDERS = ("cpu", "cuda")
"""Those of `mncompress.runtime`, which is not imported here."""
EXPERIMENTS = ("fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10", "families", "all")
"""The names that `mncompress.experiments.reproduce` takes; likewise."""

Complete = Callable[[str], list[str]]


def offer(values: Iterable[str] | Callable[[], Iterable[str]], *, many: bool = False) -> Complete:
    """A callback that offers what begins as the word under the cursor does.

    Args:
        values: what may be chosen, or a function that looks it up.
        many: the word is a comma-separated list; its last element is completed.
    """
    def complete(incomplete: str) -> list[str]:
        done = os.environ.get(DONE, "")
        word = done + incomplete
        kept = word[:word.rfind(",") + 1] if many else ""
        found = (kept + value for value in (values() if callable(values) else values))
        return [value.removeprefix(done) for value in found if value.startswith(word)]

    return complete


def offer_field(cls: type, name: str) -> Complete | None:
    """A callback for a field whose type lists its values, None for another."""
    values = get_args(get_type_hints(cls)[name])
    return offer(values) if values and all(isinstance(value, str) for value in values) else None


def offer_option(name: str) -> Complete | None:
    """A callback for the option of `train` that sets this field of its configuration."""
    return offer(activations, many=True) if name == "activation" else offer_field(TrainConfig, name)


def activations() -> list[str]:
    """The names that `--activation` takes."""
    return ["meta", "vaf", "agsig", "frelu", *(f"{family}:{act}" for family in ("warp", "fixed") for act in ACTS)]


def data_names() -> Iterable[str]:
    """The names that `--data` takes."""
    from mncompress.data import DATASET_NAMES

    return DATASET_NAMES


class CompletingGroup(CommandGroup):
    """Reads the words that bash broke as the user wrote them."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, or answer the shell."""
        if os.environ.get(VARIABLE) == "complete_bash":
            os.environ.update(join_words(os.environ))
        return super().main(*args, **kwargs)


def join_words(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a bash completion with the words up to the cursor joined where they were broken.

    `COMP_WORDS` has a word on each line, as Typer's script for bash writes it, and `COMP_CWORD` is the number of the one to
    complete.
    """
    broken = environment["COMP_WORDS"].split("\n")[:int(environment["COMP_CWORD"]) + 1]
    words = broken[:1]
    for before, word in pairwise(broken):
        if before and word and (set(before) <= set(BREAKS) or set(word) <= set(BREAKS)):
            words[-1] += word
        else:
            words.append(word)
    last = words.pop()
    if last.startswith("--") and "=" in last:
        option, _, last = last.partition("=")
        words.append(option)
    done = last[:last.rfind(":") + 1]
    return {"COMP_WORDS": "\n".join([*words, last.removeprefix(done)]), "COMP_CWORD": str(len(words)), DONE: done}
