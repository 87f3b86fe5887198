"""The embedded database: created once, durable by default, entered by its socket only."""

import psycopg


def test_the_test_server_takes_connections(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select current_database(), current_user").fetchone()

    assert row == ("comptroller", "comptroller")


def test_the_server_has_no_network_address(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("show listen_addresses").fetchone()

    assert row == ("",)
