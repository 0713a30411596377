"""Column types that behave the same on SQLite and PostgreSQL."""

import math
import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for NUL and lone surrogates, which PostgreSQL does not store."""
    return _UNSTORABLE.sub("\ufffd", text)


def storable_json(value: Any) -> Any:
    """JSON values with `storable` strings and null for numbers that JSON does not have."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(str(k)): storable_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(v) for v in value]
    return value


class FreeText(TypeDecorator[str]):
    """Text of any length."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replaces what not every database stores."""
        return None if value is None else storable(value)


class Identifier(TypeDecorator[str]):
    """An id or a digest, ordered bytewise on every database whatever its locale."""

    impl = sa.String(64)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Collation C on PostgreSQL; SQLite compares bytes anyway."""
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(sa.String(64, collation=collation))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replaces what not every database stores, so that a malformed id is merely not found."""
        return None if value is None else storable(value)


class Timestamp(TypeDecorator[datetime]):
    """An aware datetime; always UTC when read back."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive values: nobody knows what they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a timestamp needs a timezone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite gives the zone no place; what was stored is UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonValue(TypeDecorator[Any]):
    """JSON; None is SQL NULL. PostgreSQL's JSONB does not keep the order of keys."""

    impl = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Replaces what not every database stores."""
        return storable_json(value)


SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
