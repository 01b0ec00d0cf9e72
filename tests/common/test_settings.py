"""Settings: what YAML and overrides are read as, and the one line that tells what was wrong."""

import math
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.kinds import Kinds
from mcts_dpo.common.settings import (
    Settings,
    changed,
    difference,
    dump_settings,
    load_settings,
    nearest,
    read_yaml,
)


class Example(Settings):
    question: str
    note: str = ""


class Search(Settings):
    children: int = Field(default=4, ge=1, lt=100)
    c_puct: float = Field(default=1.0, gt=0)
    temperature: float | None = Field(default=None, ge=0)
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    depth: int | Literal["auto"] = "auto"
    expand: Literal["step", "rollout"] = "rollout"
    examples: tuple[Example, ...] = ()
    stop: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)
    best: Example | None = None
    out: Path | None = None
    verbose: bool = False
    yes: str = "Yes"
    name: str = Field(default="x", min_length=1)

    @field_validator("name")
    @classmethod
    def _no_slash(cls, name: str) -> str:
        if "/" in name:
            raise ValueError("holds a slash")
        return name

    @model_validator(mode="after")
    def _ordered(self) -> "Search":
        if self.range[0] > self.range[1]:
            raise ValueError("range ends before it starts")
        return self


class Run(Settings):
    seed: int = 0
    search: Search = Search()
    columns: dict[Literal["question", "answer"], str] = Field(default_factory=dict)


class Needs(Settings):
    source: str
    limit: int = 3


def complaint(*overrides: str, cls: type[Settings] = Run, source: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        load_settings(cls, source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings(Run, None) == Run()
    assert load_settings(Run, {}) == Run()


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_settings(Run, path) == Run()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1e6", 1e6), ("2.5E+3", 2500.0), (".5", 0.5), ("1.", 1.0), ("3", 3.0), (".inf", math.inf)],
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"search:\n  c_puct: {text}\n")
    loaded = load_settings(Run, path).search.c_puct
    assert loaded == value
    assert isinstance(loaded, float)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("0x10", 16), ("010", 10), ("1_000", 1000), ("-2e2", -200), ("2e+1", 20)],
)
def test_whole_numbers(text: str, value: int) -> None:
    loaded = load_settings(Run, None, [f"seed={text}"]).seed
    assert loaded == value
    assert isinstance(loaded, int)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1:30", "2024-01-01", "Yes", "y"])
def test_words_of_yaml_1_1_are_text(text: str) -> None:
    assert load_settings(Run, None, [f"search.yes={text}"]).search.yes == text


def test_yes_is_a_name_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("search:\n  yes: no\n  out: here/there\n  stop: ['1e-6', \"\\n\"]\n")
    search = load_settings(Run, path).search
    assert (search.yes, search.out, search.stop) == ("no", Path("here/there"), ("1e-6", "\n"))


def test_python_callers_may_pass_lists_and_mappings() -> None:
    search = Search(examples=[{"question": "q"}], stop=["a", "b"], out="x")  # type: ignore[arg-type]
    assert search.examples == (Example(question="q"),)
    assert search.stop == ("a", "b")
    assert search.out == Path("x")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Run().seed = 3  # type: ignore[misc]


def test_overrides_in_order_and_the_source_stays_as_it_was() -> None:
    source: dict[str, Any] = {"search": {"children": 2}, "columns": {"question": "q"}}
    run = load_settings(
        Run,
        source,
        ["search.children=8", "search.children=9", "search.best.question='1e6'", "columns.answer=target", "seed=7"],
    )
    assert run.search.children == 9
    assert run.search.best == Example(question="1e6")
    assert run.columns == {"question": "q", "answer": "target"}
    assert source == {"search": {"children": 2}, "columns": {"question": "q"}}


def test_override_with_null_equals_signs_and_members_of_a_settings_object() -> None:
    run = load_settings(Run, {"search": Search(temperature=0.5, children=7)}, ["search.temperature=null"])
    assert run.search.temperature is None
    assert run.search.children == 7
    assert load_settings(Run, None, ["search.yes=a=b"]).search.yes == "a=b"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.childrn=4", "search.childrn: unknown setting; did you mean 'children'?"),
        ("children=4", "children: unknown setting; did you mean 'search.children'?"),
        ("zzz=4", "zzz: unknown setting (accepted: seed, search, columns)"),
        ("search.children=abc", "search.children: 'abc' is not an integer (accepted: an integer ≥ 1 and < 100)"),
        ("search.children=1.5", "search.children: 1.5 is not an integer (accepted: an integer ≥ 1 and < 100)"),
        ("search.children=0", "search.children: 0 is out of range (accepted: an integer ≥ 1 and < 100)"),
        ("search.children=null", "search.children: null is not an integer (accepted: an integer ≥ 1 and < 100)"),
        ("search.c_puct=true", "search.c_puct: true is not a number (accepted: a number > 0)"),
        ("search.top_p=2", "search.top_p: 2 is out of range (accepted: a number > 0 and ≤ 1 or null)"),
        ("search.temperature=-1", "search.temperature: -1 is out of range (accepted: a number ≥ 0 or null)"),
        ("search.depth=deep", "search.depth: 'deep' is not accepted (accepted: an integer or 'auto')"),
        (
            "search.expand=rolout",
            "search.expand: 'rolout' is not one of the choices; did you mean 'rollout'? (accepted: 'step'",
        ),
        ("search.expand=3", "search.expand: 3 is not one of the choices (accepted: 'step' or 'rollout')"),
        ("search.verbose=1", "search.verbose: 1 is not true or false (accepted: true or false)"),
        ("search.stop=x", "search.stop: 'x' is not a list (accepted: a list, each item text)"),
        ("search.stop=[x, 3]", "search.stop.1: 3 is not text (accepted: text)"),
        ("search.range=[0, a]", "search.range.1: 'a' is not a number (accepted: a number)"),
        ("search.examples=[{qestion: a}]", "search.examples.0.qestion: unknown setting; did you mean 'question'?"),
        ("search.examples=[{note: a}]", "search.examples.0.question: missing (accepted: text)"),
        ("search.best=3", "search.best: 3 is not a group of settings (accepted: the settings question, note or null)"),
        ("search.out=3", "search.out: 3 is not a path (accepted: a path or null)"),
        ("search.name=''", "search.name: '' is out of range (accepted: text, not empty)"),
        ("search.name=a/b", "search.name: 'a/b' holds a slash"),
        ("search.range=[2, 1]", "search: range ends before it starts"),
        ("columns.question=3", "columns.question: 3 is not text (accepted: text)"),
        ("columns.qestion=x", "columns.qestion: unknown name; did you mean 'question'?"),
        ("columns=3", "columns: 3 is not a mapping (accepted: a mapping of 'question' or 'answer' to text)"),
    ],
)
def test_what_is_wrong_in_one_line(override: str, told: str) -> None:
    message = complaint(override)
    assert message.startswith(f"override {override!r}: {told}")


def test_several_errors_the_unknown_name_first_the_rest_counted() -> None:
    assert complaint(cls=Needs, source={"sorce": "x", "limit": "y"}) == (
        "Needs: sorce: unknown setting; did you mean 'source'? (and 2 more)"
    )


def test_the_file_is_named_and_an_override_is_when_it_is_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("search:\n  children: x\n")
    assert complaint(source=path).startswith(f"{path}: search.children: 'x' is not an integer")
    assert complaint("seed=1", source=path).startswith(f"{path}: search.children")
    path.write_text("search:\n  children: 3\n")
    assert complaint("seed=x", source=path) == "override 'seed=x': seed: 'x' is not an integer (accepted: an integer)"
    told = complaint("search.range=[2.0, 1.0]", "search.children=3", source=path)
    assert told == "override 'search.range=[2.0, 1.0]': search: range ends before it starts"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\nsearch: [1\n", "line 3: not YAML"),
        ("seed: 1\n\tsearch: 2\n", "line 2: not YAML"),
        ("search:\n  children: 1\n  children: 2\n", "line 3: not YAML ('children' is set twice)"),
        ("seed: !!python/name:os.system\n", "line 1: not YAML"),
        ("- 1\n- 2\n", "[1, 2] is not a group of settings (accepted: lines of 'name: value')"),
        ("3: 4\n", "3: unknown setting (accepted: seed, search, columns)"),
        ("a: \x00\n", "not YAML"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    message = complaint(source=path)
    assert message.startswith(str(path))
    assert told in message


def test_missing_file_directory_and_binary(tmp_path: Path) -> None:
    assert complaint(source=tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: no such file"
    assert "cannot be read" in complaint(source=tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x80")
    assert "not UTF-8" in complaint(source=tmp_path / "binary.yaml")


@pytest.mark.parametrize("override", ["search", "=3", "search.=3", "."])
def test_an_override_is_name_equals_value(override: str) -> None:
    assert "accepted: NAME=VALUE" in complaint(override)


def test_an_override_that_goes_through_a_value() -> None:
    assert complaint("a.b=3", source={"a": 1}) == "override 'a.b=3': 'a' is 1, not a group of settings"
    assert "not YAML" in complaint("seed=[1")


@given(
    st.builds(
        Search,
        children=st.integers(1, 99),
        c_puct=st.floats(min_value=0, exclude_min=True, allow_nan=False),
        stop=st.lists(
            st.text() | st.sampled_from(["1e-6", "null", "yes", "010", "1:30", "~", "", "a\n b\n", " x", "<<"])
        ).map(tuple),
        yes=st.text(),
        best=st.none() | st.builds(Example, question=st.text(), note=st.text()),
        depth=st.integers() | st.just("auto"),
    )
)
def test_what_is_dumped_is_read_back_equal(search: Search) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_bytes(dump_settings(Run(search=search)).encode())
        assert load_settings(Run, path) == Run(search=search)


def test_a_dump_is_complete_ordered_and_plain_yaml() -> None:
    run = Run(search=Search(out=Path("a/b"), c_puct=1e-6, stop=("one\ntwo\n",)))
    text = dump_settings(run)
    plain = yaml.safe_load(text)
    assert list(plain) == ["seed", "search", "columns"]
    assert list(plain["search"]) == list(Search.model_fields)
    assert plain["search"]["c_puct"] == 1e-6
    assert plain["search"]["out"] == "a/b"
    assert "- |\n    one\n    two\n" in text
    assert dump_settings(run) == text


def test_difference_names_what_changed_and_only_that() -> None:
    a = Run(seed=1, columns={"question": "q"})
    b = load_settings(
        Run, a.model_dump(), ["search.children=8", "search.best.question=x", "columns={}", "search.stop=[a]"]
    )
    assert difference(a, a) == []
    assert difference(a, b) == [
        "search.children: 4 -> 8",
        'search.stop: [] -> ["a"]',
        "columns.question: 'q' -> absent",
        "search.best.question: absent -> 'x'",
        "search.best.note: absent -> ''",
    ]


def test_nearest() -> None:
    assert nearest("Childrn", ["depth", "children"]) == "children"
    assert nearest("qqq", ["depth", "children"]) is None


@pytest.mark.parametrize("text", ['{a: "\\uD800"}', "a: " + "[" * 5000, "a: &x [*x]", "a: " + "9" * 5000])
def test_yaml_that_no_setting_can_hold_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


class Shape(Settings):
    kind: str


class Circle(Shape):
    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0)


class Square(Shape):
    kind: Literal["square"] = "square"
    side: float = Field(1.0, gt=0)


SHAPES: dict[str, type[Shape]] = {"circle": Circle, "square": Square}
OneShape = Annotated[SerializeAsAny[Shape], Kinds(lambda: tuple(SHAPES), SHAPES.__getitem__, "circle")]


class Drawing(Settings):
    shape: OneShape = Circle()
    more: tuple[OneShape, ...] = ()
    title: str = ""
    moved: ClassVar[dict[str, str]] = {"radius": "shape.radius", "name": "title"}


class Book(Settings):
    page: Drawing = Drawing()


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ([], Circle()),
        (["page.shape=square"], Square()),
        (["page.shape={kind: square, side: 2}"], Square(side=2.0)),
        (["page.shape.radius=2"], Circle(radius=2.0)),
        (["page.shape=square", "page.shape.side=3"], Square(side=3.0)),
        (["page.shape.radius=2", "page.shape=square"], Square()),
    ],
)
def test_a_kind_brings_its_own_settings(given: list[str], shape: Shape) -> None:
    found = load_settings(Book, None, given)
    assert found.page.shape == shape
    assert type(found.page.shape) is type(shape)
    assert load_settings(Book, yaml.safe_load(dump_settings(found))) == found
    assert Drawing(shape=shape).shape == shape


def test_a_list_of_kinds() -> None:
    found = load_settings(Book, {"page": {"more": ["square", {"kind": "circle", "radius": 3}]}})
    assert found.page.more == (Square(), Circle(radius=3.0))
    assert difference(found, Book()) == [
        'page.more: [{"kind": "square", "side": 1.0}, {"kind": "circle", "radius": 3.0}] -> []'
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "page.shape=squar",
            "page.shape: 'squar' is not one of the choices; did you mean 'square'? (accepted: 'circle'",
        ),
        ("page.shape={kind: 4}", "page.shape.kind: 4 is not one of the choices (accepted: 'circle' or 'square')"),
        ("page.shape={kind: square, side: 0}", "page.shape.side: 0 is out of range (accepted: a number > 0)"),
        ("page.shape={kind: square, radius: 1}", "page.shape.radius: unknown setting (accepted: kind, side)"),
        ("page.shape=4", "page.shape: 4 is not a group of settings (accepted: 'circle' or 'square', or a mapping"),
        (
            "page.more=[square, {kind: square, side: x}]",
            "page.more.1.side: 'x' is not a number (accepted: a number > 0)",
        ),
    ],
)
def test_what_is_wrong_with_a_kind_in_one_line(override: str, told: str) -> None:
    assert told in complaint(override, cls=Book)


def test_names_that_have_moved_are_told_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "book.yaml"
    file.write_text("page: {radius: 2, name: a, size: 3}")
    with pytest.raises(InputError) as refused:
        load_settings(Book, file)
    assert str(refused.value) == f"{file}: page.radius is now page.shape.radius; page.name is now page.title"
    assert complaint("page.name=a", cls=Book) == "override 'page.name=a': page.name is now page.title"
    with pytest.raises(ValidationError, match="name is now title"):
        Drawing(name="a")


def test_a_changed_copy_is_checked() -> None:
    found = changed(Book(), {"page.title": "a", "page.shape": "square"})
    assert found == Book(page=Drawing(title="a", shape=Square()))
    assert changed(found, {"page.shape.side": 2.0}).page.shape == Square(side=2.0)
    with pytest.raises(ValidationError):
        changed(found, {"page.shape.side": -1.0})
