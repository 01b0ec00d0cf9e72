"""The tables between the search and the trainer: step-level preference pairs, and whole solutions.

In and out: columns of numbers, text and token ids, held in one Arrow table and written as one Parquet
file (`prompt`, `chosen`, `rejected` and `prompt`, `completion` are the columns that TRL reads). The file
carries the digest of the tokenizer that made its ids. A table that exists is valid: every way to make one
checks types and contents. Knows nothing of trees, of how pairs are selected, or of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcts_dpo.files import InputError, read_table, write_table

_TOKENS = pa.list_(pa.int32())


def _schema(**types: Any) -> Any:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


@dataclass(frozen=True, slots=True)
class Ragged:
    """Token sequences of different lengths in one arena.

    values:  [T] int32, all tokens one sequence after the other.
    offsets: [n + 1] int64, sequence i is values[offsets[i]:offsets[i + 1]].
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Sequence `index` (0 ≤ index < n), a view of int32 token ids."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] int64, tokens in each sequence."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """One Arrow table with the columns of `schema`, in that order, plus its tokenizer's digest."""

    table: Any  # pa.Table

    schema: ClassVar[Any]
    what: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _conform(self.table, self.schema, self.what))
        self._check(self.what)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | NDArray[Any] | Ragged], tokenizer: str) -> Self:
        """Make a table from one sequence per column (see `schema` for names and types) and a tokenizer's digest.

        Token columns take a `Ragged` or a list of sequences of ids. Raises InputError naming the column
        (and row) where one is missing, of another type or length, or holds what the table cannot mean.
        """
        unknown = sorted(set(columns) - set(cls.schema.names))
        if unknown:
            raise InputError(f"{cls.what}: unknown column {unknown[0]!r} (columns: {', '.join(cls.schema.names)})")
        given = [field for field in cls.schema if field.name in columns]
        for field in given[1:]:
            rows, expected = len(columns[field.name]), len(columns[given[0].name])
            if rows != expected:
                raise InputError(f"{cls.what}: {field.name} has {rows} rows, {given[0].name} has {expected}")
        arrays = {field.name: _array(columns[field.name], field, cls.what) for field in given}
        return cls(pa.table(arrays).replace_schema_metadata({"tokenizer": tokenizer}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read one Parquet file; columns beyond the schema are dropped.

        Raises InputError naming the file, and the column and row, for whatever is missing or wrong.
        """
        table = read_table(path)
        try:
            return cls(table)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{cls.what}: ')}") from None

    def save(self, path: Path) -> None:
        """Write one Parquet file, whole or not at all; the bytes depend on the contents alone."""
        write_table(path, self.table)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order. Raises InputError when there is none, or tokenizers differ."""
        if not parts:
            raise InputError(f"{cls.what}: nothing to concatenate")
        digests = sorted({part.tokenizer for part in parts})
        if len(digests) > 1:
            raise InputError(f"{cls.what}: made with different tokenizers ({digests[0][:12]}…, {digests[1][:12]}…)")
        return cls(pa.concat_tables([part.table for part in parts]))

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Self:
        """The given rows (0-based), in the given order."""
        return type(self)(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(self.table.equals(other.table, check_metadata=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def tokenizer(self) -> str:
        """Digest of the tokenizer whose ids these are."""
        return str(self.table.schema.metadata[b"tokenizer"].decode())

    def numbers(self, column: str) -> NDArray[Any]:
        """A number column as an array: [n], int32 or float64 as in the schema."""
        array: NDArray[Any] = self.table.column(column).to_numpy()
        return array

    def texts(self, column: str) -> list[str]:
        """A text column as a list of n strings."""
        return [str(text) for text in self.table.column(column).to_pylist()]

    def tokens(self, column: str) -> Ragged:
        """A token column as one arena with offsets."""
        lists = self.table.column(column).combine_chunks()
        if isinstance(lists, pa.ChunkedArray):  # pyarrow returns either, by version and chunk count
            lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], type=_TOKENS)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        values = lists.values.to_numpy()[offsets[0] : offsets[-1]]
        return Ragged(values, offsets - offsets[0])

    def _check(self, where: str) -> None:
        raise NotImplementedError

    def _refuse(self, where: str, column: str, wrong: NDArray[np.bool_], accepted: str) -> None:
        rows = np.flatnonzero(wrong)
        if len(rows):
            value = self.table.column(column)[int(rows[0])].as_py()
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            raise InputError(f"{where}: row {rows[0]}{more}: {column} is {value!r} (accepted: {accepted})")

    def _check_finite(self, where: str, *columns: str) -> None:
        for column in columns:
            self._refuse(where, column, ~np.isfinite(self.numbers(column)), "a finite number")

    def _check_positive(self, where: str, column: str) -> None:
        values = self.numbers(column)
        self._refuse(where, column, ~(np.isfinite(values) & (values > 0)), "a finite number above 0")

    def _check_tokens(self, where: str, *columns: str, empty: bool = False) -> None:
        for column in columns:
            tokens = self.tokens(column)
            if not empty:
                self._refuse(where, column, tokens.lengths == 0, "at least one token id")
            if len(tokens.values) and tokens.values.min() < 0:
                first = int(np.flatnonzero(tokens.values < 0)[0])
                row = int(np.searchsorted(tokens.offsets, first, side="right")) - 1
                raise InputError(f"{where}: row {row}: {column} holds {tokens.values[first]} (accepted: ids from 0)")


class Pairs(_Columns):
    """Step-level preferences: after the same prefix, one step is preferred to another. One row per pair.

    problem_id:      str, the problem the tree was grown for.
    tree:            int32, which tree of its shard; parent, chosen_node, rejected_node: int32 node ids in it.
    prompt:          str, question prompt and the steps so far, as text; chosen, rejected: str, the two steps.
    prompt_tokens:   [≥ 1] int32, the question prompt only.
    prefix_tokens:   [≥ 0] int32, the policy's own steps before the pair.
    chosen_tokens, rejected_tokens: [≥ 1] int32, the step only; never equal.
    chosen_q, rejected_q: float64, action values; margin: float64, their gap.
    chosen_visits, rejected_visits, chosen_samples, rejected_samples: int32, evidence counted in two ways.
    smoothing:       float64 in [0, 0.5), the probability that the label is the wrong way round (0: none).
    weight:          float64 > 0, the pair's share in the mean.
    chosen_logprob, rejected_logprob: float64 ≤ 0 nats, the sampling policy's, summed over the step.

    Source of the columns: Xie et al. 2024, arXiv 2405.00451, section 2.2.
    """

    __slots__ = ()
    what: ClassVar[str] = "pairs"
    schema: ClassVar[Any] = _schema(
        problem_id=pa.string(),
        tree=pa.int32(),
        parent=pa.int32(),
        chosen_node=pa.int32(),
        rejected_node=pa.int32(),
        prompt=pa.string(),
        chosen=pa.string(),
        rejected=pa.string(),
        prompt_tokens=_TOKENS,
        prefix_tokens=_TOKENS,
        chosen_tokens=_TOKENS,
        rejected_tokens=_TOKENS,
        chosen_q=pa.float64(),
        rejected_q=pa.float64(),
        margin=pa.float64(),
        chosen_visits=pa.int32(),
        rejected_visits=pa.int32(),
        chosen_samples=pa.int32(),
        rejected_samples=pa.int32(),
        smoothing=pa.float64(),
        weight=pa.float64(),
        chosen_logprob=pa.float64(),
        rejected_logprob=pa.float64(),
    )

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "chosen_tokens", "rejected_tokens")
        self._check_tokens(where, "prefix_tokens", empty=True)
        self._check_finite(where, "chosen_q", "rejected_q", "margin", "chosen_logprob", "rejected_logprob")
        self._check_positive(where, "weight")
        smoothing = self.numbers("smoothing")
        self._refuse(where, "smoothing", ~((smoothing >= 0) & (smoothing < 0.5)), "from 0 to below 0.5")
        chosen, rejected = self.tokens("chosen_tokens"), self.tokens("rejected_tokens")
        for row in np.flatnonzero(chosen.lengths == rejected.lengths).tolist():
            if np.array_equal(chosen[row], rejected[row]):
                step = self.table.column("chosen")[row].as_py()
                raise InputError(f"{where}: row {row}: chosen equals rejected ({step!r}); a pair needs two steps")


class Solutions(_Columns):
    """Whole solutions to imitate. One row per solution.

    problem_id:        str; tree, leaf: int32, which tree of its shard and the node the solution ends in.
    prompt:            str, the question prompt; completion: str, the solution.
    prompt_tokens:     [≥ 1] int32; completion_tokens: [≥ 1] int32, the end of sequence included.
    q:                 float64, the value of the path.
    weight:            float64 > 0, the solution's share in the mean over tokens.
    """

    __slots__ = ()
    what: ClassVar[str] = "solutions"
    schema: ClassVar[Any] = _schema(
        problem_id=pa.string(),
        tree=pa.int32(),
        leaf=pa.int32(),
        prompt=pa.string(),
        completion=pa.string(),
        prompt_tokens=_TOKENS,
        completion_tokens=_TOKENS,
        q=pa.float64(),
        weight=pa.float64(),
    )

    def _check(self, where: str) -> None:
        self._check_tokens(where, "prompt_tokens", "completion_tokens")
        self._check_finite(where, "q")
        self._check_positive(where, "weight")


def _array(column: Sequence[Any] | NDArray[Any] | Ragged, field: Any, where: str) -> Any:
    try:
        if isinstance(column, Ragged):
            return pa.ListArray.from_arrays(column.offsets.astype(np.int32), column.values)
        array = pa.array(column, type=field.type)
        member = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_integer(member):
            given = pa.array(column).type
            if pa.types.is_floating(given.value_type if pa.types.is_list(given) else given):
                # Asked for integers, Arrow would cut 1.5 to 1 without a word.
                raise TypeError("fractions were given")
        return array
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: column {field.name!r} is not {field.type} ({reason})") from None


def _same_kind(given: Any, wanted: Any) -> bool:
    """Whether a lossless cast may be tried: widths and encodings may differ, meanings may not."""
    types = pa.types
    if types.is_list(wanted):
        return bool((types.is_list(given) or types.is_large_list(given)) and types.is_integer(given.value_type))
    if types.is_integer(wanted):
        return bool(types.is_integer(given))
    if types.is_floating(wanted):
        return bool(types.is_floating(given) or types.is_integer(given))
    return bool(types.is_string(given) or types.is_large_string(given))


def _conform(table: Any, schema: Any, where: str) -> Any:
    """The table with exactly the schema's columns and types and the tokenizer's digest, or InputError."""
    metadata = table.schema.metadata or {}
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            raise InputError(f"{where}: column {field.name!r} is missing (found: {', '.join(table.column_names)})")
        column = table.column(field.name)
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise InputError(f"{where}: row {row}: {field.name} is null (accepted: {field.type})")
        # An empty table read from text formats has columns of type null: nothing in them can be wrong.
        if len(column) and not _same_kind(column.type, field.type):
            raise InputError(f"{where}: column {field.name!r} is {column.type} (accepted: {field.type})")
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{where}: column {field.name!r} does not fit {field.type} ({reason})") from None
    if not metadata.get(b"tokenizer"):
        raise InputError(f"{where}: no digest of the tokenizer in the schema's metadata (key 'tokenizer')")
    return pa.table(columns, schema=schema.with_metadata({"tokenizer": metadata[b"tokenizer"]}))
