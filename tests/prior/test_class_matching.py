import random
from pathlib import Path

import pytest

from d3hr.errors import ClassMismatch, SettingsError
from d3hr.prior.class_matching import Conditioning, match_classes, read_class_map
from d3hr.prior.imagenet import attached_wnids, imagenet_labels

WNIDS, LABELS = list(imagenet_labels()), list(imagenet_labels().values())
TEN = {
    "goldfish": 1, "bullfrog": 30, "king penguin": 145, "golden retriever": 207, "Egyptian cat": 285, "monarch": 323, "chimpanzee": 367,
    "African elephant": 386, "school bus": 779, "pizza": 963,
}  # fmt: skip
IMAGENETTE = {
    "tench": 0, "English springer": 217, "cassette player": 482, "chain saw": 491, "church": 497, "French horn": 566, "garbage truck": 569,
    "gas pump": 571, "golf ball": 574, "parachute": 701,
}  # fmt: skip
FEW = ("goldfish", "n01641577", "school bus")


def ids(class_names: list[str], prior_classes: list[str] | tuple[str, ...] = LABELS, class_map: dict[str, str] | None = None) -> list[int]:
    return [int(row.key) for row in match_classes(class_names, prior_classes, of="PHOTOS", class_map=class_map or {})]


def refusal(class_names: list[str], prior_classes: list[str] | tuple[str, ...] = LABELS, class_map: dict[str, str] | None = None) -> str:
    with pytest.raises(ClassMismatch) as caught:
        ids(class_names, prior_classes, class_map)
    return str(caught.value)


def test_the_table_is_ilsvrc_2012() -> None:
    """A thousand wnids, sorted, all different; ends and a middle from the published list."""
    assert len(WNIDS) == 1000
    assert sorted(WNIDS) == WNIDS
    assert (WNIDS[0], LABELS[0]) == ("n01440764", "tench, Tinca tinca")
    assert (WNIDS[517], LABELS[517]) == ("n03126707", "crane")
    assert (WNIDS[999], LABELS[999]) == ("n15075141", "toilet tissue, toilet paper, bathroom tissue")


@pytest.mark.parametrize("classes", [TEN, IMAGENETTE])
@pytest.mark.parametrize("prior_classes", [LABELS, WNIDS, [label.split(",")[0] for label in LABELS]])
def test_the_folders_order_changes_no_pair(classes: dict[str, int], prior_classes: list[str]) -> None:
    """Known ILSVRC ids, in any order of the folders, whether the prior has labels, wnids or short names, and so do folders of wnids."""
    names = list(classes)
    for seed in range(3):
        random.Random(seed).shuffle(names)
        assert ids(names, prior_classes) == [classes[name] for name in names]
        assert ids([WNIDS[classes[name]] for name in names], prior_classes) == [classes[name] for name in names]


def test_all_of_imagenet_matches_itself() -> None:
    """A thousand wnids find a thousand ids, the two cranes included. So do the labels of all but the cranes; where the prior has wnids
    a label that is another's synonym too is open: partridge (86; 82), cardigan, harp, maillot, missile.
    """
    assert ids(WNIDS) == ids(WNIDS, WNIDS) == list(range(1000))
    told = [index for index in range(1000) if LABELS[index] != "crane"]
    assert len(told) == 998
    assert ids([LABELS[index] for index in told]) == told
    told = [index for index in told if LABELS[index] not in {"partridge", "cardigan", "harp", "maillot", "missile"}]
    assert ids([LABELS[index] for index in told], WNIDS) == told
    assert "partridge [82 n01797886 (ruffed grouse, partridge, Bonasa umbellus), 86 n01807496 (partridge)]" in refusal(["partridge"], WNIDS)


def test_each_row_says_how_it_was_matched() -> None:
    rows = match_classes(["a", "bullfrog", "School_bus"], FEW, of="PHOTOS", class_map={"a": "goldfish"})
    assert rows == (
        Conditioning("a", 0, "goldfish", "class map"),
        Conditioning("bullfrog", 1, "n01641577", "wnid"),
        Conditioning("School_bus", 2, "school bus", "label or synonym"),
    )
    assert match_classes(["goldfish"], FEW, of="PHOTOS")[0].how == "exact name"
    assert match_classes(["n01443537"], FEW, of="PHOTOS")[0].how == "wnid"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tench", 0), ("Tinca_tinca", 0), ("  TENCH ", 0), ("tench,tinca  TINCA", 0), ("tam tam", 577), ("hen-of-the-woods", 996),
        ("maillot", 638), ("tank suit", 639), ("maillot, tank suit", 639), ("missile", 657), ("projectile", 744),
        ("cardigan", 474), ("Cardigan Welsh corgi", 264), ("sunglass", 836), ("sunglasses", 837), ("harp", 594),
    ],
)  # fmt: skip
def test_synonyms_in_any_spelling(name: str, found: int) -> None:
    """The first way that finds anything decides: the very name "missile" is 657, though 744 is called so too."""
    assert ids([name]) == [found]


def test_unicode_composition_is_no_difference() -> None:
    """One accented letter, or a letter with a combining accent as macOS writes it; ß folds to ss."""
    assert ids(["cafe\u0301", "GROSSE STRASSE"], ("große Straße", "Caf\u00e9")) == [1, 0]


def test_names_that_are_empty_when_folded_match_nothing() -> None:
    assert "2 class(es) of PHOTOS are not" in refusal(["_", ","], ("-", ",,", " "))


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("crane", "crane [134 crane (n02012849), 517 crane (n03126707)]"),
        ("Cardigan", "Cardigan [264 Cardigan, Cardigan Welsh corgi (n02113186), 474 cardigan (n02963159)]"),
        ("Missile", "Missile [657 missile (n03773504), 744 projectile, missile (n04008634)]"),
        ("Maillot", "Maillot [638 maillot (n03710637), 639 maillot, tank suit (n03710721)]"),
    ],
)
def test_an_ambiguous_name_is_refused_with_its_candidates(name: str, candidates: str) -> None:
    """Two classes have the very name "crane"; the others are no class's exact name, but a synonym of two."""
    assert LABELS.count(name) == (2 if name == "crane" else 0)
    assert f"1 class(es) of PHOTOS could be several classes of the prior: {candidates}." in refusal(["tench", name])


def test_candidates_among_wnids_are_shown_with_their_labels() -> None:
    assert "crane [0 n02012849 (crane), 2 n03126707 (crane)]" in refusal(["crane"], ("n02012849", "tench", "n03126707"))


def test_a_shared_label_is_told_by_position_only_where_positions_are_proven() -> None:
    """The two cranes: certain in ILSVRC's order, unknown once any other class has moved, one is missing, or the prior is small."""
    assert ids(["n02012849", "n03126707"]) == [134, 517]
    moved = [LABELS[1], LABELS[0], *LABELS[2:]]
    for prior_classes in (moved, LABELS[:999], ("crane", "tench"), ("n02012849", "crane")):
        assert "n03126707 (crane) -> crane?" in refusal(["n03126707"], prior_classes)
    unrelated = [f"thing {index}" for index in range(1000)]
    unrelated[134] = "crane"
    assert attached_wnids(unrelated) == (None,) * 1000


def test_positions_need_a_shared_name() -> None:
    """In ILSVRC's order a class that shares no name with its place stays apart: 134 "stork" is no crane."""
    changed = [*LABELS[:134], "stork", *LABELS[135:]]
    assert attached_wnids(changed)[134] is None
    assert attached_wnids(changed)[133] == WNIDS[133]


def test_labels_written_by_others_attach_where_they_overlap_with_one_wnid() -> None:
    """One synonym in common is enough; a synonym of two wnids (panther: cougar, jaguar) or two classes is not."""
    assert attached_wnids(("Tench, doctor fish", "panther", "missile", "spoon")) == ("n01440764", None, "n03773504", None)
    assert attached_wnids(("goldfish", "Carassius auratus")) == (None, None)
    assert attached_wnids(("tench", "n01440764")) == (None, "n01440764")
    assert ids(["n01440764"], ("spoon", "Tench, doctor fish")) == [1]
    assert ids(["tench, Tinca tinca"], ("spoon", "Tench, doctor fish")) == [1]


def test_a_synonym_the_prior_does_not_use_is_suggested_but_not_taken() -> None:
    """A prior of animals may call one "mouse": it is offered for ImageNet's "mouse, computer mouse", never drawn for it."""
    assert "computer mouse -> mouse?" in refusal(["computer mouse"], ("mouse", "cat"))


def test_missing_classes_are_listed_with_the_nearest_names() -> None:
    message = refusal(["zebre", "tench", "xylograph", "n00000001"])
    assert "3 class(es) of PHOTOS are not classes of the prior: zebre -> zebra?, xylograph" in message
    assert "PHOTOS has [zebre, tench, xylograph, n00000001]; the prior has [tench, Tinca tinca; goldfish" in message
    assert "and 980 more]" in message
    assert "do:    rename the folders, or give --class-map FILE with lines" in message


def test_position_is_never_used() -> None:
    """Ten folders with names of their own against ten classes: refused, though the numbers would fit."""
    assert "10 class(es) of PHOTOS are not" in refusal([f"thing {index}" for index in range(10)], [f"row {index}" for index in range(10)])


def test_two_classes_of_one_prior_class_are_refused_unless_the_map_says_so() -> None:
    message = refusal(["tench", "Tinca tinca", "zebra"])
    assert "1 class(es) of the prior are reached by several classes of PHOTOS: tench and Tinca tinca [0 tench" in message
    assert "tench and my fish [0" in refusal(["tench", "my fish"], class_map={"my fish": "tench"})
    assert ids(["my fish", "his fish"], class_map={"my fish": "tench", "his fish": "0"}) == [0, 0]


def test_everything_wrong_is_said_at_once() -> None:
    message = refusal(["zebre", "crane", "tench", "Tinca tinca"])
    for words in ("1 class(es) of PHOTOS are not", "1 class(es) of PHOTOS could be several", "1 class(es) of the prior are reached"):
        assert words in message


def test_long_lists_are_cut_and_only_what_is_shown_is_looked_up() -> None:
    message = refusal([f"class {index}" for index in range(1000)])
    assert "class 19, and 980 more." in message
    assert "class 20" not in message


def test_the_class_map_comes_first_by_any_name_or_id() -> None:
    """It overrides a name that would match; digits are an id only where no class is called so."""
    assert ids(["tench"], class_map={"tench": "goldfish"}) == [1]
    assert ids(["a", "b", "c", "d"], class_map={"a": "n02012849", "b": "Tinca tinca", "c": "517", "d": "0999"}) == [134, 0, 517, 999]
    assert ids(["x"], ("2", "1", "0"), {"x": "2"}) == [0]
    assert ids(["x"], ("2", "1", "zero"), {"x": "0"}) == [0]


@pytest.mark.parametrize(
    ("class_map", "words"),
    [
        ({"a": "zebre"}, "a: the prior has no class zebre -> zebra?"),
        ({"a": "crane"}, "a: crane could be [134 crane (n02012849), 517 crane (n03126707)]"),
        ({"a": "1000"}, "a: the conditioning ids of the prior run from 0 to 999, not to 1000"),
        ({"a": "9" * 5000}, "a: the prior has no class 999"),
        ({"a": "-1"}, "a: the prior has no class -1"),
        ({"a": "٣"}, "a: the prior has no class ٣"),
        ({"a": ""}, "a: the prior has no class"),
        ({"tensch": "zebra"}, "PHOTOS has no class tensch -> tench?"),
    ],
)
def test_a_class_map_that_does_not_fit_is_refused(class_map: dict[str, str], words: str) -> None:
    message = refusal(["a", "tench"], class_map=class_map)
    assert words in message
    assert "PHOTOS has [a, tench]; the prior has [" in message
    assert "do:    correct the lines" in message


def test_a_class_map_is_read_as_text(tmp_path: Path) -> None:
    """YAML would make of these a truth value, numbers, nothing and a date."""
    path = tmp_path / "map.yaml"
    path.write_text('no: yes\n007: 0o7\n~: null\n2024-01-01: 1e3\n"a: b": tench, Tinca tinca  # a fish\nkäfer: 134\n', encoding="utf-8")
    expected = {"no": "yes", "007": "0o7", "~": "null", "2024-01-01": "1e3", "a: b": "tench, Tinca tinca", "käfer": "134"}
    assert read_class_map(path) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no line of that form"),
        (b"{}", "no line of that form"),
        (b"- tench\n- zebra\n", "no line of that form"),
        (b"tench\n", "no line of that form"),
        (b"a: tench\nb: [tench]\nc:\n", "line(s) 2, 3"),
        (b"? [a]\n: tench\n", "line(s) 1"),
        (b"a: b: c\n", "is not YAML"),
        (b"a: tench\n---\nb: tench\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"a: tench\nb: zebra\na: zebra\n", "names a class more than once.\n  found: a\n"),
    ],
)
def test_files_that_are_no_class_map_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_class_map(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_missing_class_map_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match=r"class map .* cannot be read"):
            read_class_map(path)
