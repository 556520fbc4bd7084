"""Settings: defaults, then the file, then the environment, then the command line; errors name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.core.settings import Settings, load


def home(tmp_path: Path, text: str = "") -> dict[str, str]:
    (tmp_path / "atoll.toml").write_text(text)
    return {"ATOLL_HOME": str(tmp_path)}


def test_defaults_are_loopback_and_inside_the_home(tmp_path: Path) -> None:
    settings = load({}, {"ATOLL_HOME": str(tmp_path)})
    assert (settings.host, settings.port) == ("127.0.0.1", 8400)
    assert settings.database_url == f"sqlite:///{tmp_path}/atoll.db"
    assert settings.blobs_url == f"{tmp_path}/blobs"


def test_the_file_beats_the_default_the_environment_the_file_and_the_command_line_all(tmp_path: Path) -> None:
    environment = home(tmp_path, 'site = "file"\nnode = "file"\nlease_ttl_s = 3\nlisten = "127.0.0.1:1"\n')
    environment |= {"ATOLL_NODE": "environment", "ATOLL_SITE": "environment", "ATOLL_DATABASE": ""}
    settings = load({"site": "option", "listen": None}, environment)
    assert (settings.site, settings.node, settings.lease_ttl_s) == ("option", "environment", 3.0)
    assert (settings.port, settings.database) == (1, "")


def test_the_home_comes_from_the_command_line_first(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "atoll.toml").write_text('site = "other"')
    assert load({"home": str(other)}, home(tmp_path, 'site = "wrong"')).site == "other"


def test_the_home_is_absolute_and_the_tilde_expanded() -> None:
    assert load({}, {}).home == Path("~/.atoll").expanduser().resolve()


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('lease_ttl_s = "soon"', "lease_ttl_s", "ATOLL_LEASE_TTL_S"),
        ("lease_ttl_s = 0", "lease_ttl_s", "greater than 0"),
        ('listem = "x"', "listem", "did you mean 'listen'"),
        ('listen = "8400"', "listen", "host:port"),
        ('listen = "localhost:99999"', "listen", "host:port"),
        ('log_level = "loud"', "log_level", "DEBUG, INFO"),
        ("[section]\na = 1", "section", "valid: "),
        ("= 1", "atoll.toml", "not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(tmp_path: Path, text: str, field: str, words: str) -> None:
    with pytest.raises(Invalid) as raised:
        load({}, home(tmp_path, text))
    assert raised.value.field.endswith(field)
    assert words in str(raised.value)
    assert field in str(raised.value)


def test_a_wrong_environment_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"setting 'body_bytes_max' cannot be '-1'.*ATOLL_BODY_BYTES_MAX"):
        load({}, home(tmp_path) | {"ATOLL_BODY_BYTES_MAX": "-1"})


def test_a_secret_setting_is_never_shown(tmp_path: Path) -> None:
    hidden = "p4ssw0rd-that-nobody-may-see"
    assert hidden not in repr(load({}, {"ATOLL_HOME": str(tmp_path), "ATOLL_SECRETS_KEY": hidden}))
    with pytest.raises(Invalid, match="setting 'secrets_key' cannot be what was given") as caught:
        load({}, home(tmp_path, f'secrets_key = ["{hidden}"]\n'))
    assert hidden not in str(caught.value)


def test_an_ipv6_address_is_read(tmp_path: Path) -> None:
    settings = load({"listen": "[::1]:80"}, home(tmp_path))
    assert (settings.host, settings.port) == ("::1", 80)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_others_reach_the_door_where_it_listens_unless_told_otherwise(tmp_path: Path) -> None:
    def door(**given: str) -> str:
        return load({"home": str(tmp_path), **given}, {}).door_url

    assert door(listen="10.0.0.7:80") == "http://10.0.0.7:80"
    assert door(listen="0.0.0.0:8400") == "http://127.0.0.1:8400"
    assert door(listen="[::1]:8400") == "http://[::1]:8400"
    assert door(public_url="https://ai.example/") == "https://ai.example"
