"""Everything that can go wrong, as one tree.

    D3hrError
    ├── DataError              the images given cannot be used
    │   └── UnreadableImages   some files are not images d3hr will read
    ├── SettingsError          a setting is unknown, out of range, or contradicts another
    ├── PriorError             a diffusion prior cannot be loaded or does not fit the task
    ├── ClassMismatch          two things that must have the same classes do not
    ├── OutputError            the place to write to holds something else, or cannot be written
    ├── DamagedFile            a file is not what d3hr wrote
    ├── DistilledSetError      a folder is not a (complete) distilled set
    ├── ResultsError           results of an evaluation or a diagnosis are missing or damaged
    ├── NumericalError         a computation left the finite numbers
    └── ExecutionError         worker processes or machines cannot do their work

Every message has three parts: what is wrong, what was found, and what to do next. Messages are written with the flags of the command
line, ``--batch-size``; outside a command they are shown with the names of arguments, ``batch_size``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_IN_COMMAND = ContextVar("in a command", default=False)
_FLAG = re.compile(r"'d3hr [^']*'|(?<![\w-])--([a-z][a-z-]*[a-z])")
"""A whole command in quotation marks, or a flag."""
LISTED = 20
"""Most names that a message lists."""
_ALIKE = 3
"""Most of these names, of files that cannot be read for the same reason."""


class D3hrError(Exception):
    """Base of all errors that d3hr raises on purpose.

    Args:
        what: what is wrong, one sentence.
        found: what was found instead.
        hint: what to do next.
    """

    def __init__(self, what: str, *, found: str = "", hint: str = "") -> None:
        self.what, self.found, self.hint = what, found, hint
        lines = [what, f"  found: {found}" if found else "", f"  do:    {hint}" if hint else ""]
        super().__init__("\n".join(line for line in lines if line))

    def __str__(self) -> str:
        text = super().__str__()
        return text if _IN_COMMAND.get() else _FLAG.sub(lambda found: found[1].replace("-", "_") if found[1] else found[0], text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors of every class be pickled, whatever their constructors take."""
        return D3hrError.__new__, (type(self), *self.args), self.__dict__


@contextmanager
def in_command() -> Iterator[None]:
    """Let messages inside name flags as they are written on a command line."""
    before = _IN_COMMAND.set(True)
    try:
        yield
    finally:
        _IN_COMMAND.reset(before)


class DataError(D3hrError):
    """The images given cannot be used."""


class UnreadableImages(DataError):
    """Some files are not images d3hr will read; ``files`` names each with its reason.

    Args:
        source: where they are.
        reasons: name of a file -> why it cannot be read; the message lists equal reasons once, with their count.
    """

    def __init__(self, source: str, reasons: Mapping[str, str]) -> None:
        self.files = tuple(f"{name}: {reason}" for name, reason in reasons.items())
        names: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            names.setdefault(reason, []).append(name)
        lines = [
            f"{alike[0]}: {reason}" if len(alike) == 1 else f"{len(alike)} images: {reason}: {listed(alike, limit=_ALIKE)}"
            for reason, alike in names.items()
        ]
        super().__init__(
            f"{len(reasons)} image(s) of {source} cannot be read.",
            found=listed(lines, separator="\n         "),
            hint="repair or remove them, or pass --on-bad-image skip to leave them out (counted in the manifest).",
        )


class SettingsError(D3hrError):
    """A setting is unknown, out of range, or contradicts another."""


class PriorError(D3hrError):
    """A diffusion prior cannot be loaded or does not fit the task."""


class ClassMismatch(D3hrError):
    """Two things that must have the same classes do not.

    Args:
        ours: the name of one thing.
        theirs: the name of the other, which must have the classes of the first.
        wrong: what does not match, one sentence each; by default, the classes of the first that the other does not have.
    """

    def __init__(
        self,
        ours: str,
        our_classes: Iterable[str],
        theirs: str,
        their_classes: Iterable[str],
        *,
        wrong: Sequence[str] = (),
        hint: str = "classes are matched by exact name: rename the folders, or use a teacher or test set of the same classes.",
    ) -> None:
        mine, other = list(our_classes), list(their_classes)
        unknown = [name for name in mine if name not in set(other)]
        super().__init__(
            listed(wrong, separator="\n") or f"{len(unknown)} class(es) of {ours} are not classes of {theirs}: {listed(unknown)}.",
            found=f"{ours} has [{_classes(mine)}]; {theirs} has [{_classes(other)}]",
            hint=hint,
        )

    @classmethod
    def unless_same(cls, ours: str, our_classes: Iterable[str], theirs: str, their_classes: Iterable[str]) -> None:
        """Raise unless both things have the same classes, in whatever order; the arguments are those of the constructor."""
        mine, other = tuple(our_classes), tuple(their_classes)
        if not set(mine) <= set(other):
            raise cls(ours, mine, theirs, other)
        if not set(other) <= set(mine):
            raise cls(theirs, other, ours, mine)


class OutputError(D3hrError):
    """The place to write to holds something else, or cannot be written."""


class DamagedFile(D3hrError):
    """A file is not what d3hr wrote: bits have flipped, it is cut short, or it is gone."""


class DistilledSetError(D3hrError):
    """A folder is not a (complete) distilled set."""


class ResultsError(D3hrError):
    """Results of an evaluation or a diagnosis are missing or damaged."""


class NumericalError(D3hrError):
    """A computation left the finite numbers."""

    @classmethod
    @contextmanager
    def naming(cls, class_name: str) -> Iterator[None]:
        """Add the name of the class to a :class:`NumericalError` that is raised inside."""
        try:
            yield
        except NumericalError as error:
            raise cls(f"Class {class_name!r}: {error.what}", found=error.found, hint=error.hint) from error


class ExecutionError(D3hrError):
    """Worker processes or machines cannot do their work."""


def require_kind(argument: str, value: object, kind: type | tuple[type, ...], hint: str) -> None:
    """Raise a :class:`SettingsError`, which names ``argument``, for a value of another type; ``hint`` says how to come by a right one."""
    if not isinstance(value, kind):
        kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise SettingsError(f"{argument} must be of type {kinds}.", found=f"{type(value).__name__} {value!r:.60}", hint=hint)


def require_class(source: str, name: str, names: Collection[str]) -> None:
    """Raise a :class:`DataError` for a class that ``source``, whose classes are ``names``, does not have."""
    if name not in names:
        raise DataError(f"{source} has no class {name!r}.", found=f"classes: {_classes(list(names))}", hint="name one of these.")


def require_at_least(flag: str, value: int, least: int = 1) -> None:
    """Raise a :class:`SettingsError`, which names ``flag``, for a value below ``least``."""
    if value < least:
        raise SettingsError(f"{flag} must be at least {least}.", found=f"{value}", hint=f"give {least} or more.")


def _classes(names: Sequence[str]) -> str:
    """List class names; those of ImageNet contain commas."""
    return listed(names, separator="; " if any("," in name for name in names) else ", ")


def printable(text: str, *, keep: str = "") -> str:
    """Return ``text`` with all characters that are not printable escaped, except those in ``keep``.

    Names of files and classes come from anywhere: a control character could clear or rewrite the screen, and a byte that is not UTF-8
    could not be printed at all. Spaces of every width, which macOS writes into the names of screenshots, do no harm.
    """

    def harmless(each: str) -> bool:
        return each.isprintable() or each in keep or unicodedata.category(each) == "Zs"

    return "".join(each if harmless(each) else each.encode("unicode_escape").decode() for each in text)


def listed(names: Sequence[str], *, separator: str = ", ", limit: int = LISTED) -> str:
    """Join names for a message; of more than ``limit`` names, the message says how many are left out."""
    shown = separator.join(names[:limit])
    hidden = len(names) - limit
    return f"{shown}{separator}and {hidden} more" if hidden > 0 else shown


def flag(setting: str) -> str:
    """Return the command-line flag of a setting, ``--batch-size`` of ``batch_size``, as messages name it."""
    return "--" + setting.replace("_", "-")


def first_complaint(error: ValidationError) -> tuple[str, str, str]:
    """Return what pydantic complains of first: the field, with dots (empty for the whole), what is wrong, and the value it has."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    found = "nothing" if first["type"] == "missing" else f"{first['input']!r:.80}" if field else ""
    return field, first["msg"].removeprefix("Value error, ").rstrip("."), found


def settings_error(
    error: ValidationError, prefix: str = "--", hint: str = "correct the value; --help lists what each setting takes."
) -> SettingsError:
    """Translate pydantic's first complaint into one of ours, with ``prefix`` before the name of the field."""
    field, wrong, found = first_complaint(error)
    name = (flag(field) if prefix == "--" else prefix + field) if field else prefix.rstrip("-.: ") or "the settings"
    return SettingsError(f"{name}: {wrong}.", found=found, hint=hint)
