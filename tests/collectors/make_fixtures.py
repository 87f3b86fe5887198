"""Write the fixture of a real llama.cpp page: a server, three calls, its page as it stands.

    python -m tests.collectors.make_fixtures

Run it when the model server of the demo extra is updated, and look at the difference.
"""

from pathlib import Path

from tests.collectors.modelserver import chat, metrics_text, model_server

FIXTURES = Path(__file__).parent / "fixtures"


def main() -> None:
    with model_server() as url:
        for words, tokens in (("Tell a story.", 24), ("Tell a story.", 16), ("Count.", 8)):
            chat(url, words, max_tokens=tokens)
        (FIXTURES / "llamacpp.prom").write_text(metrics_text(url))


if __name__ == "__main__":
    main()
