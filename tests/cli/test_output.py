"""One answer, four readers."""

import pytest

from controlplane.cli.output import AGENT_VARIABLES, Exit, Format, Output, escape, exit_code
from controlplane.launcher.errors import AlreadyRunningError, LauncherError, NotRunningError

COLUMNS = ("part", "state")
ROWS = [("database", "ready"), ("web", None)]


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        (Format.HUMAN, "part      state\ndatabase  ready\nweb       -\n"),
        (Format.AGENT, "part\tstate\ndatabase\tready\nweb\t-\n"),
        (
            Format.JSON,
            '[{"part":"database","state":"ready"},{"part":"web","state":null}]\n',
        ),
        (Format.QUIET, "database\nweb\n"),
    ],
)
def test_a_table(wanted: Format, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    Output(wanted).table(COLUMNS, ROWS)

    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        (Format.HUMAN, "  web url  http://x\n  port     1\n"),
        (Format.AGENT, "web_url=http://x\nport=1\n"),
        (Format.JSON, '{"web_url":"http://x","port":1}\n'),
        (Format.QUIET, "http://x\n"),
    ],
)
def test_a_result(wanted: Format, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    Output(wanted).result({"web_url": "http://x", "port": 1})

    assert capsys.readouterr().out == printed


def test_words_for_people_are_spared_programs(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (Format.HUMAN, Format.AGENT, Format.JSON, Format.QUIET):
        Output(wanted).text("hello")

    assert capsys.readouterr().out == "hello\n"


def test_progress_errors_and_hints_leave_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(Format.JSON)
    output.step("web", "ready", 1.25)
    output.error("no")
    output.hint("try")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "web        ready  1.2 s\nerror: no\nhint: try\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.QUIET).step("web", "ready")
    Output(Format.QUIET).hint("try")

    assert capsys.readouterr().err == ""


def test_a_hostile_name_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.HUMAN).table(("agent",), [("\x1b[2Jevil\r\nname\t!",)])

    assert capsys.readouterr().out == "agent\n\\x1b[2Jevil\\r name !\n"


def test_escape_keeps_letters_of_all_scripts() -> None:
    assert escape("größe 値 \x07") == "größe 値 \\x07"


@pytest.mark.parametrize("variable", AGENT_VARIABLES)
def test_a_coding_agent_is_recognised(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AGENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert Output(Format.AUTO).format is Format.HUMAN

    monkeypatch.setenv(variable, "1")

    assert Output(Format.AUTO).format is Format.AGENT


def test_a_wish_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_AGENT", "1")

    assert Output(Format.HUMAN).format is Format.HUMAN


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LauncherError(), Exit.UNAVAILABLE),
        (AlreadyRunningError(), Exit.CONFLICT),
        (NotRunningError(), Exit.NOT_FOUND),
    ],
)
def test_failures_have_codes(error: LauncherError, code: Exit) -> None:
    assert exit_code(error) is code
