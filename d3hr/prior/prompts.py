"""The prompts that a text-to-image prior is given for the classes of a data set."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from d3hr.errors import ClassMismatch, SettingsError, listed
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.imagenet import imagenet_labels, synonyms

DEFAULT_PROMPT = "a photo of a {name}"
"""The template of the prompts of CLIP (arXiv 2103.00020, section 3.1.4)."""
_NAME = "{name}"


def spoken(class_name: str) -> str:
    """Return a class's name as text: of a wnid the first synonym of its ImageNet label; spaces for underscores."""
    label = imagenet_labels().get(class_name)
    return " ".join((synonyms(label)[0] if label else class_name).replace("_", " ").split())


def prompts_of(class_names: Sequence[str], template: str = DEFAULT_PROMPT) -> dict[str, str]:
    """Return class -> prompt: the template with each class's name, as text, in the place of ``{name}``.

    Raises:
        SettingsError: the template has no such place.
    """
    if _NAME not in template:
        raise SettingsError("--prompt has no place for the class.", found=repr(template), hint=f"write {_NAME} where its name belongs.")
    return {name: template.replace(_NAME, spoken(name)) for name in class_names}


def match_prompts(
    class_names: Sequence[str], *, of: str, template: str | None = None, class_map: Mapping[str, str] | None = None
) -> tuple[Conditioning, ...]:
    """Return the prompt of each class of a data set, in the order of ``class_names``.

    Args:
        of: name of the data set in messages.
        template: see :func:`prompts_of`; :data:`DEFAULT_PROMPT` where there is no class map either.
        class_map: class -> prompt, as it is; without a template, it has to have all classes.

    Raises:
        ClassMismatch: the class map names a class that does not exist or, without a template, misses one; or two classes have one prompt,
            not both through the class map.
    """
    named = class_map or {}
    wrong = [f"{of} has no class {name}, which the class map names." for name in named if name not in class_names]
    missing = [name for name in class_names if name not in named]
    if named and missing and template is None:
        wrong.append(f"The class map has no prompt for {len(missing)} class(es) of {of}: {listed(missing)}.")
    prompts = {**prompts_of(class_names, template or DEFAULT_PROMPT), **named}
    users = defaultdict(list)
    for name in class_names:
        users[prompts[name]].append(name)
    wrong += [
        f"{' and '.join(same)} have the same prompt, {prompt!r}."
        for prompt, same in users.items()
        if len(same) > 1 and any(name not in named for name in same)
    ]
    if wrong:
        raise ClassMismatch(
            of,
            class_names,
            "the class map",
            named,
            wrong=wrong,
            hint='give --class-map FILE with a line "class: prompt" for each class, or --prompt for those that it leaves out.',
        )
    return tuple(Conditioning(name, None, prompts[name], "class map" if name in named else "prompt") for name in dict.fromkeys(class_names))
