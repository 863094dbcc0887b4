"""The file of users: what is wrong in it is named, and no password is ever quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehome_consumer.commands.topology_users import script
from rehome_consumer.errors import SettingsError
from rehome_consumer.rabbitmq.permissions import READABLE, User
from rehome_consumer.rabbitmq.users_file import password_of, read_users
from rehome_events.client.subscriber import Subscriber

EXAMPLE = Path(__file__).parents[4] / "rabbitmq" / "users.example.toml"
GOOD = '[[user]]\nname = "crm"\nrole = "subscriber"\nkeys = ["migration.completed"]\npassword_env = "CRM"\n'


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "users.toml"
    path.write_text(text)
    return path


def test_the_example_has_a_user_of_each_role() -> None:
    example = read_users(EXAMPLE)
    assert [user.role for user in example.users] == ["billing", "migrator", "operator", "subscriber"]
    assert example.others == ("admin",)


def test_a_subscribers_name_is_its_team_in_the_kit() -> None:
    async def ignore(_: object) -> None:
        """Ignore it."""

    for user in read_users(EXAMPLE).users:
        queue = Subscriber("amqp://localhost/migration", ignore, team=user.name, name="news").queue
        assert queue == f"sub_{user.name}.news"


def test_a_relative_password_file_is_beside_the_file_of_users(tmp_path: Path) -> None:
    text = GOOD.replace('password_env = "CRM"', 'password_file = "crm"')
    (user,) = read_users(file(tmp_path, text)).users
    (tmp_path / "crm").write_text("secret\n")
    assert password_of(user) == "secret"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", r"users\.toml: write one \[\[user\]\] table for each user"),
        (GOOD, "user = 1", r"write one \[\[user\]\] table"),
        ("[[user]]", "[[user", r"users\.toml: Expected "),
        ("[[user]]", "x = 1\n[[user]]", r"users\.toml: unknown 'x'; there are user, others"),
        ("[[user]]", "others = 'x'\n[[user]]", "others must be a list of texts"),
        ("[[user]]", "others = [1]\n[[user]]", "others must be a list of texts"),
        ("password_env", "pasword", "user 1: unknown 'pasword'; there are name, role, keys, password_env"),
        ('name = "crm"', "", "user 1: name must be lower-case letters and digits"),
        ('"crm"', '"CRM"', "name must be lower-case letters"),
        ('"crm"', '"a.b"', "name must be lower-case letters"),
        ('"crm"', '"a|b"', "name must be lower-case letters"),
        ('"crm"', '"a b"', "name must be lower-case letters"),
        ('"crm"', '"-p"', "name must be lower-case letters"),
        ('"crm"', '"crm\\n"', "name must be lower-case letters"),
        ('"crm"', f'"{"a" * 65}"', "at most 64"),
        ('"crm"', "1", "user 1: name must be text"),
        ('"crm"', '"guest"', "user guest: guest is RabbitMQ's default user"),
        ('"subscriber"', '"root"', "user crm: role must be one of billing, migrator, operator, subscriber"),
        ('role = "subscriber"', "", "user crm: role must be one of"),
        ('"subscriber"', '"operator"', "user crm: keys are for subscribers"),
        (
            '["migration.completed"]',
            "[]",
            "user crm: say in keys which types it may see, of instance.resized, ",
        ),
        (
            '"migration.completed"',
            '"migration.*"',
            r"'migration\.\*' in keys is not a type that a subscriber may",
        ),
        (
            '"migration.completed"',
            '"plan.upgraded"',
            r"'plan\.upgraded' in keys is not a type that a subscriber",
        ),
        ('"migration.completed"', "1", "keys must be a list of texts"),
        ('password_env = "CRM"', "", "say where the password is, either password_env or password_file"),
        ('password_env = "CRM"', 'password_env = "CRM"\npassword_file = "x"', "say where the password is"),
        ('"CRM"', '"$(reboot)"', "password_env must be the name of an environment variable"),
        (GOOD, GOOD + GOOD, "user crm is listed twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError, match=message):
        read_users(file(tmp_path, GOOD.replace(old, new)))


def test_a_missing_file_and_one_that_is_not_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"users\.toml.*No such file"):
        read_users(tmp_path / "users.toml")
    (tmp_path / "users.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"users\.toml.*codec"):
        read_users(tmp_path / "users.toml")


@pytest.mark.parametrize(
    "secret", [" hidden", "hidden ", "hid\nden", "hid\tden", "hidd\u00e9n", "hid\x00den"]
)
def test_a_password_that_tools_would_alter_is_refused(tmp_path: Path, secret: str) -> None:
    (tmp_path / "crm").write_text(secret, encoding="utf-8")
    user = User("crm", "subscriber", password_file=str(tmp_path / "crm"))
    with pytest.raises(SettingsError, match="printable ASCII") as refusal:
        password_of(user)
    assert secret.strip() not in str(refusal.value)


def test_a_missing_password_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_TEST_PASSWORD", raising=False)
    with pytest.raises(
        SettingsError, match=r"user crm \(environment variable CRM_TEST_PASSWORD\) is missing"
    ):
        password_of(User("crm", "subscriber", password_env="CRM_TEST_PASSWORD"))
    with pytest.raises(SettingsError, match=r"user crm \(file .*crm\): No such file or directory"):
        password_of(User("crm", "subscriber", password_file=str(tmp_path / "crm")))


def test_the_printed_script_names_where_passwords_are_and_quotes_its_input() -> None:
    users = (
        User("crm", "subscriber", READABLE[:1], password_env="CRM"),
        User("operator", "operator", password_file="/run/it's here"),
    )
    lines = list(script(users, "docker exec -i mq rabbitmqctl", "users\n.toml"))
    assert (
        lines[1]
        == "# Users of virtual host migration, made from 'users\\n.toml'. Passwords are read when this runs."
    )
    assert ': "${CRM:?is not set}"' in lines
    assert (
        "docker exec -i mq rabbitmqctl set_permissions --vhost migration operator "
        r"'^$' '^migration\.handler$' '^migration\.dead$'"
    ) in lines
    (made,) = (line for line in lines if "add_user operator" in line)
    assert made.startswith(
        "docker exec -i mq rabbitmqctl add_user operator < '/run/it'\"'\"'s here' 2>/dev/null || "
    )
