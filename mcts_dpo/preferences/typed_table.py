"""A typed table of numbers, text and token ids: the base of every table of the preference data.

One Arrow table with a fixed schema, written as one Parquet file that carries the digest of the tokenizer that made
its ids. Every way to make a table checks types and contents, so that an existing table is valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, write_table

TOKENS = pa.list_(pa.int32())


def schema_of(**types: Any) -> Any:
    """A pyarrow schema of columns by name and type, none of which may be null."""
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


ENVIRONMENT = "_environment"
"""Beside `x_tokens`, a column `x_environment` holds the indices in it ([≥ 0] int32, rising) of tokens that the
environment wrote, such as a tool's output: they are read, and never part of a loss. A table without the column has
none."""
_FORMERLY = "_observed"
"""The end of these columns' names in files of the first edition, which are still read."""


@dataclass(frozen=True, slots=True)
class JaggedArray:
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
class TypedTable:
    """One Arrow table with the columns of `schema`, in that order, plus its tokenizer's digest."""

    table: Any  # pa.Table

    schema: ClassVar[Any]
    what: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _conform(self.table, self.schema, self.what))
        self._check(self.what)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | NDArray[Any] | JaggedArray], tokenizer: str) -> Self:
        """Make a table from one sequence per column (see `schema` for names and types) and a tokenizer's digest.

        Token columns take a `JaggedArray` or a list of sequences of ids. Raises InputError naming the column
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
        for part in parts:
            part.require_tokenizer(parts[0].tokenizer)
        return cls(pa.concat_tables([part.table for part in parts]))

    def require_tokenizer(self, other: str) -> None:
        """Raise InputError unless the table was made with the tokenizer of this digest."""
        if self.tokenizer != other:
            first, second = sorted([other, self.tokenizer])
            raise InputError(f"{self.what}: made with different tokenizers ({first[:12]}…, {second[:12]}…)")

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
        """A number column as an array: [n], int32, float64 or bool as in the schema."""
        array: NDArray[Any] = self.table.column(column).to_numpy()
        return array

    def texts(self, column: str) -> list[str]:
        """A text column as a list of n strings."""
        return [str(text) for text in self.table.column(column).to_pylist()]

    def tokens(self, column: str) -> JaggedArray:
        """A token column as one arena with offsets."""
        lists = self.table.column(column).combine_chunks()
        if isinstance(lists, pa.ChunkedArray):  # pyarrow returns either, by version and chunk count
            lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], type=TOKENS)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        values = lists.values.to_numpy()[offsets[0] : offsets[-1]]
        return JaggedArray(values, offsets - offsets[0])

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

    def _check_environment(self, where: str, *names: str, prefix: bool = False) -> None:
        """Environment tokens must exist; a step needs a token of the policy (`prefix`: no step)."""
        for name in names:
            indices, lengths = self.tokens(name + ENVIRONMENT), self.tokens(f"{name}_tokens").lengths
            owner = np.repeat(np.arange(len(indices)), indices.lengths)
            outside = (indices.values < 0) | (indices.values >= lengths[owner])
            falling = np.append(False, (np.diff(indices.values) <= 0) & (np.diff(owner) == 0))[: len(owner)]
            wrong = np.zeros(len(indices), dtype=np.bool_)
            wrong[owner[outside | falling]] = True
            self._refuse(where, name + ENVIRONMENT, wrong, f"rising indices in {name}_tokens")
            if not prefix:
                nothing = (indices.lengths == lengths) & (lengths > 0)
                self._refuse(where, name + ENVIRONMENT, nothing, "not every token of a step: none would be learned")

    def environment_mask(self, name: str) -> list[NDArray[np.bool_]]:
        """Per row, [tokens] bool: which of `name`_tokens the environment wrote."""
        indices, lengths = self.tokens(name + ENVIRONMENT), self.tokens(f"{name}_tokens").lengths
        masks = [np.zeros(length, dtype=np.bool_) for length in lengths.tolist()]
        for row in np.flatnonzero(indices.lengths).tolist():
            masks[row][indices[row]] = True
        return masks

    def _check_tokens(self, where: str, *columns: str, empty: bool = False) -> None:
        for column in columns:
            tokens = self.tokens(column)
            if not empty:
                self._refuse(where, column, tokens.lengths == 0, "at least one token id")
            if len(tokens.values) and tokens.values.min() < 0:
                first = int(np.flatnonzero(tokens.values < 0)[0])
                row = int(np.searchsorted(tokens.offsets, first, side="right")) - 1
                raise InputError(f"{where}: row {row}: {column} holds {tokens.values[first]} (accepted: ids from 0)")


def _array(column: Sequence[Any] | NDArray[Any] | JaggedArray, field: Any, where: str) -> Any:
    try:
        if isinstance(column, JaggedArray):
            return pa.ListArray.from_arrays(column.offsets.astype(np.int32), column.values)
        array = pa.array(column, type=field.type)
        member = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_integer(member):
            given = pa.array(column).type
            if pa.types.is_floating(given.value_type if pa.types.is_list(given) else given):
                # Arrow would silently truncate 1.5 to 1.
                raise TypeError("fractions were given")
        return array
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: column {field.name!r} is not {field.type} ({reason})") from None


def _same_kind(given: Any, wanted: Any) -> bool:
    """Whether a lossless cast may be tried: widths and encodings may differ, kinds may not."""
    types = pa.types
    if types.is_list(wanted):
        return bool((types.is_list(given) or types.is_large_list(given)) and types.is_integer(given.value_type))
    if types.is_boolean(wanted):
        return bool(types.is_boolean(given))
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
        if field.name not in table.column_names and field.name.endswith(ENVIRONMENT):
            earlier = field.name.removesuffix(ENVIRONMENT) + _FORMERLY
            if earlier not in table.column_names:
                columns.append(pa.array([[]] * table.num_rows, type=field.type))
                continue
            table = table.rename_columns({earlier: field.name})
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
