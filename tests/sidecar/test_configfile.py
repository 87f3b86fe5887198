"""The configuration file: what it can say, what it must not, and who wins."""

from pathlib import Path

import pytest

from enforcement.rules.modelroutes import Choose, Lane, ModelRoute, Target
from enforcement.sidecar.config import Config, ConfigError
from enforcement.sidecar.configfile import (
    ClientTlsTable,
    RouteTable,
    ServerTlsTable,
    Source,
    TargetTable,
    UpstreamTable,
    _settings,
)
from tests.sidecar.certificates import Authority

BASIC = """
control_url = "https://control.example"
spool_dir = "spool"
token_file = "token"
"""
NODE = '[[upstream]]\nname = "a"\nurl = "http://127.0.0.1:1/v1"\n'


def load(
    tmp_path: Path, text: str, *, environ: dict[str, str] | None = None, **flags: object
) -> Config:
    (tmp_path / "token").write_text("secret-token\n")
    path = tmp_path / "sidecar.toml"
    path.write_text(text)
    return Source(flags, environ=environ or {}, path=path).load()


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "openai.key").write_text("sk-secret\n")
    config = load(
        tmp_path,
        'listen = "0.0.0.0:9000"\nworkers = 2\ngrant_timeout = 1.5\n'
        + BASIC
        + NODE
        + 'concurrency = 8\nweight = 2\n[[upstream]]\nname = "paid"\nlocal = false\n'
        + 'url = "https://api.openai.com/v1"\nkey_file = "openai.key"\n'
        + 'models = { small = "gpt-small-2026", large = "large" }\n',
    )
    assert (config.listen_host, config.listen_port, config.workers) == ("0.0.0.0", 9000, 2)
    assert (config.token, config.grant_timeout) == ("secret-token", 1.5)
    assert config.spool_dir == tmp_path / "spool"
    node, paid = config.upstreams
    assert (node.name, node.port, node.path, node.concurrency, node.weight) == ("a", 1, "", 8, 2)
    assert (paid.key, paid.models, paid.local) == ("sk-secret", ("small", "large"), False)
    assert paid.renamed == (("small", "gpt-small-2026"),)


def test_routes(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        BASIC
        + NODE
        + '[[route]]\nmodel = "assistant"\nchoose = "cheapest"\n[[route.targets]]\nmodel = "small"\n'
        + 'upstreams = ["a"]\nup_to_prompt_tokens = 2000\n[[route.targets]]\nmodel = "large"\n'
        + 'lane = "batch"\n',
    )
    small = Target("small", ("a",), 2000)
    large = Target("large", lane=Lane.BATCH)
    assert config.routes == (ModelRoute("assistant", (small, large), Choose.CHEAPEST),)


def test_flags_win_and_add_nodes(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "workers = 2\n" + BASIC + NODE,
        workers=3,
        upstream=["b=http://127.0.0.1:2"],
        control_url="http://127.0.0.1:3",
    )
    assert (config.workers, config.control_url) == (3, "http://127.0.0.1:3")
    assert [upstream.name for upstream in config.upstreams] == ["b", "a"]


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = load(
        tmp_path, BASIC + NODE + 'key_env = "KEY_OF_A"\n', environ={"KEY_OF_A": "sk-secret"}
    )
    assert config.upstreams[0].key == "sk-secret"
    assert "sk-secret" not in repr(config)
    assert "secret-token" not in repr(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("grant_timeut = 1\n" + BASIC + NODE, "unknown field `grant_timeut`"),
        (BASIC + NODE + "concurency = 1\n", "unknown field `concurency`"),
        ('token = "secret"\n' + BASIC + NODE, "unknown field `token`"),
        (BASIC + NODE + 'key = "secret"\n', "unknown field `key`"),
        (BASIC + NODE + "concurrency = 0\n", "upstream 'a': concurrency must be at least 1"),
        (BASIC + NODE + "rest = 0.0\n", "upstream 'a': rest must be 0.1 to 3600 seconds"),
        (BASIC + NODE + 'key_env = "NOT_SET"\n', "key_env: NOT_SET is not set"),
        (BASIC + NODE + 'key_file = "nowhere"\n', "key_file: No such file or directory"),
        (BASIC + NODE + 'models = { a = "" }\n', "a model's name is empty"),
        (BASIC + NODE + NODE, "names must differ: a, a"),
        (BASIC, "--upstream: at least one is needed, here or in --config"),
        ("control_url = 7", "Expected `str | null`, got `int`"),
        ("control_url = ", "Invalid value"),
        ('spool_dir = "x"\ntoken_file = "token"\n' + NODE, "--control-url: missing"),
        (BASIC + NODE + "[tls]\ncert_file = 'nowhere'\n", "nowhere: No such file"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert problem in str(caught.value)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        load(tmp_path, BASIC + NODE + '[upstream.tls]\nca_file = "ca.pem"\n')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        Source({}, environ={}, path=tmp_path / "gone.toml").load()


def test_the_seal_changes_with_every_file_that_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    (tmp_path / "token").write_text("secret-token")
    path = tmp_path / "sidecar.toml"
    path.write_text(BASIC + NODE + '[upstream.tls]\nca_file = "tls/ca.pem"\n')
    source = Source({}, environ={}, path=path)
    first: Config = source.load()
    before = source.seal()
    named = {Path(name).name for name, _, _ in before}
    assert named == {"sidecar.toml", "token", "ca.pem", "margins.json"}
    Path(authority.ca_file).write_bytes(Path(authority.ca_file).read_bytes() + b"\n")
    assert source.seal() != before
    assert source.load().upstreams != first.upstreams


ROOT = Path(__file__).resolve().parents[2]


def test_the_example_loads(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).sign("sidecar")
    Path(certificate).rename(tmp_path / "sidecar.pem")
    Path(key).rename(tmp_path / "sidecar.key")
    (tmp_path / "ca.pem").rename(tmp_path / "company.pem")
    (tmp_path / "comptroller-sidecar").write_text("token")
    (tmp_path / "openai").write_text("key")
    example = (ROOT / "deploy" / "sidecar.example.toml").read_text()
    config = load(tmp_path, example.replace("/run/secrets", str(tmp_path)))
    assert [upstream.name for upstream in config.upstreams] == ["gpu-1", "gpu-2", "openai"]
    assert [route.model for route in config.routes] == ["assistant", "cheapest"]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "sidecar.md").read_text()
    tables = (UpstreamTable, RouteTable, TargetTable, ClientTlsTable, ServerTlsTable)
    names = {name for table in (_settings, *tables) for name in table.__struct_fields__}
    names -= {"upstream", "route", "tls", "control_tls"}  # tables, shown in the example
    assert (
        sorted(name for name in names if f"`{name}`" not in page and f"{name} =" not in page) == []
    )
