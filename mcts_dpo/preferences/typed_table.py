"""A typed table of numbers, text and token ids: the base of every table of the preference data.

It is one Arrow table with a fixed schema. It is written as one Parquet file, which holds the digest of the tokenizer
that made the token ids. Every way to make a table checks types and contents, so every existing table is valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, write_table

TOKENS = pa.list_(pa.int32())


def schema_of(**types: Any) -> Any:
    """Make a pyarrow schema from column names and types. No column may hold a null."""
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


ENVIRONMENT = "_environment"
"""The end of the names of columns that mark environment tokens.

A column `x_environment` holds indices ([≥ 0] int32, rising) into the column `x_tokens`. The tokens at these indices
were written by the environment, such as a tool's output. The policy reads them, and they are never part of a loss. A
table without the column has no such tokens."""
_FORMERLY = "_observed"
"""The same end of names in files of the first edition, which can still be read."""


@dataclass(frozen=True, slots=True)
class JaggedArray:
    """Sequences of different lengths in one array: token ids, or one number per step.

    values:  [T] int32 token ids (or float64, or bool) of all sequences, one sequence after the other.
    offsets: [n + 1] int64. Sequence i is values[offsets[i]:offsets[i + 1]].
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        """The values of sequence `index` (0 ≤ index < n), as a view."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of values in each sequence: [n] int64."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, eq=False)
class TypedTable:
    """One Arrow table with the columns of `schema`, in that order, and the digest of its tokenizer.

    table: the pyarrow table. schema: column names and types, set by each subclass. what: the name of its contents, for
    error messages and file names.
    """

    table: Any  # pa.Table

    schema: ClassVar[Any]
    what: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _conform(self.table, self.schema, self.what))
        self._check(self.what)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | NDArray[Any] | JaggedArray], tokenizer: str) -> Self:
        """Make a table from one sequence per column (see `schema` for names and types) and a tokenizer's digest.

        Token columns take a `JaggedArray` or a list of sequences of ids. Raises InputError, naming the column (and
        row), if a column is missing, has another type or length, or holds a value that the table does not accept.
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
        """Read one Parquet file. Columns that are not in the schema are dropped.

        Raises InputError, naming the file, the column and the row, if anything is missing or wrong.
        """
        table = read_table(path)
        try:
            return cls(table)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{cls.what}: ')}") from None

    def save(self, path: Path) -> None:
        """Write one Parquet file, whole or not at all. The bytes depend only on the contents."""
        write_table(path, self.table)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the rows of all parts, in order. Raises InputError if there is no part, or if tokenizers differ."""
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
        """Make a table of the given rows (0-based), in the given order."""
        return type(self)(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(self.table.equals(other.table, check_metadata=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def tokenizer(self) -> str:
        """The digest of the tokenizer that made the token ids."""
        return str(self.table.schema.metadata[b"tokenizer"].decode())

    def numbers(self, column: str) -> NDArray[Any]:
        """A column of numbers as an array: [n], with dtype int32, float64 or bool as in the schema."""
        array: NDArray[Any] = self.table.column(column).to_numpy()
        return array

    def texts(self, column: str) -> list[str]:
        """A text column as a list of n strings."""
        return [str(text) for text in self.table.column(column).to_pylist()]

    def tokens(self, column: str) -> JaggedArray:
        """A column of token ids, or of one number per step, as a `JaggedArray`."""
        lists = self.table.column(column).combine_chunks()
        if isinstance(lists, pa.ChunkedArray):  # pyarrow returns either, by version and chunk count
            kind = self.schema.field(column).type
            lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], type=kind)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        values = lists.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
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
        """Check that indices of environment tokens rise and exist, and that each step has a token of the policy.

        names: the columns without their endings. prefix: the columns are no steps, so they need no token of the policy.
        """
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
        """For each row, a [tokens] bool mask: which of `name`_tokens the environment wrote."""
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
    """Whether a lossless cast may be tried. Widths and encodings may differ. Kinds may not."""
    types = pa.types
    if types.is_list(wanted):
        return (types.is_list(given) or types.is_large_list(given)) and _same_kind(given.value_type, wanted.value_type)
    if types.is_boolean(wanted):
        return bool(types.is_boolean(given))
    if types.is_integer(wanted):
        return bool(types.is_integer(given))
    if types.is_floating(wanted):
        return bool(types.is_floating(given) or types.is_integer(given))
    return bool(types.is_string(given) or types.is_large_string(given))


def _conform(table: Any, schema: Any, where: str) -> Any:
    """Return the table with exactly the schema's columns and types, and with the tokenizer's digest.

    Raises InputError if this is not possible.
    """
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
        if pa.types.is_list(column.type) and pc.list_flatten(column).null_count:
            row = next(row for row, cell in enumerate(column.to_pylist()) if None in cell)
            raise InputError(f"{where}: row {row}: {field.name} holds a null (accepted: {field.type})")
        # An empty table that was read from a text format has columns of type null. They are accepted.
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
