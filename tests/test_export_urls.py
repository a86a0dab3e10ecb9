"""URLs of databases: what messages show of them, and which are refused without being shown."""

import pytest

from hashsearch.errors import InvalidQuery
from hashsearch.exports.database import Url

SECRET = "lots-of%2Fsecrets%40home"  # as it is written in a URL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:{SECRET}@db.example:5432/x", "postgresql://me@db.example:5432/x"),
        (f"postgres://:{SECRET}@/x", "postgres:///x"),
        ("postgresql://me:lots-of?secrets@db.example/x", "postgresql://me@db.example/x"),
        (
            f"postgresql://me@/x?password={SECRET}&sslmode=require",
            "postgresql://me@/x?sslmode=require",
        ),
        (f"postgresql://me@/x?p%61ssword={SECRET}", "postgresql://me@/x"),
        (f"postgresql://h/x?sslpassword={SECRET}&user=a@b", "postgresql://h/x?user=a@b"),
        *(
            (same, same)
            for same in (
                "postgresql://",
                "postgresql://m%40e@h/x",
                "postgresql://[::1]:5433,db.example:/x?target_session_attrs=any",
                "postgresql:///x?host=/run/postgresql&connect_timeout=5&options=-c%20a%3Db",
                "postgresql:///?service=pictures",
            )
        ),
    ],
)
def test_all_but_passwords_is_shown(text, shown):
    assert Url(text).shown == shown


def test_only_passwords_are_masked_in_messages():
    url = Url("postgresql://me:one%2Ftwo@10.0.0.15:5432/x?connect_timeout=5")
    shown = url.without_secrets("10.0.0.15, port 5432:\n  one/two is wrong")
    assert shown == "10.0.0.15, port 5432: *** is wrong"
    assert Url("postgresql://h/x?password=").without_secrets("no such host") == "no such host"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"postgresql://me:{SECRET}%zz@h/x", "invalid percent-encoded token"),
        (f"postgresql://me:{SECRET}@[::1/x", "end of string reached when looking for"),
        (f"postgresql://me:{SECRET}@h/x?colour=red", "invalid URI query parameter"),
        ("postgresql://h/x?secrets=5", "invalid URI query parameter"),
        ("postgresql://me:lots/of?secrets@h/x", "missing key/value separator"),
        ("postgresql://me:lots-of/secrets@home@h/x", "an @ is in its host or"),
        ("postgresql://me:lots-of@secrets@h/x", "an @ is in its host or"),
        ("postgresql://me:secrets/x", "its port is not a number"),
        ("postgresql://h/x?port=secrets", "its port is not a number"),
        (f"postgresql://me:{SECRET}\udc80@h/x", "it holds characters that are not UTF-8"),
        (f"postgresql://%ff:{SECRET}@h/x", "it holds characters that are not UTF-8"),
        (f"postgresql://me:{SECRET}\0@h/x", "it holds a NUL"),
        (f"postgresql://me:{SECRET}%00@h/x", "forbidden value %00 in"),
    ],
)
def test_what_cannot_be_read_is_refused_without_being_shown(text, reason):
    with pytest.raises(InvalidQuery) as raised:
        Url(text)
    message = str(raised.value)
    assert message.startswith(f"the database's URL cannot be read: {reason}")
    assert message.endswith("%40, %3A, %2F and %3F, or it is given in the variable PGPASSWORD")
    for secret in ("secrets", "lots", "x?", "5;"):
        assert secret not in message
