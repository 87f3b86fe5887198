from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("identity", "0001_initial")]

    operations = [
        migrations.RunSQL(
            (HERE / "0002_identity_guards.sql").read_text(),
            (HERE / "0002_identity_guards_reverse.sql").read_text(),
        ),
    ]
